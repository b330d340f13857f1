package script

import (
	"bytes"
	"context"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lang/syntax"
)

var guests = ktest.Config{Modules: []string{"dummy?", "veth"}}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// syncBuffer may be written and read at once.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// patience bounds every wait for what comes by itself.
const patience = 2 * time.Minute

// runProgram runs src while work repeats, until the program exits; one that does not is ended as Ctrl-C does once its output
// matches want, or when patience has gone.
func runProgram(t *testing.T, src string, work func(), want *regexp.Regexp) (stdout, stderr string) {
	t.Helper()
	if work == nil {
		return runHeard(t, src, nil, want)
	}
	return runHeard(t, src, func(*syncBuffer) { work() }, want)
}

// runHeard is runProgram for work that goes by what fathom has said about the program so far.
func runHeard(t *testing.T, src string, work func(said *syncBuffer), want *regexp.Regexp) (stdout, stderr string) {
	t.Helper()
	var out, errs syncBuffer
	ctx, cancel := context.WithTimeout(context.Background(), patience+time.Minute)
	defer cancel()
	stop := make(chan struct{})
	done := make(chan struct{})
	interrupt := make(chan os.Signal, 1)
	go func() {
		for start := time.Now(); !want.MatchString(out.String()) && time.Since(start) < patience; {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
		interrupt <- os.Interrupt
	}()
	go func() {
		defer close(done)
		for work != nil {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				work(&errs)
			}
		}
	}()
	_, err := Run(ctx, Options{Source: &syntax.Source{Name: "stdin", Text: src}, Stdout: &out, Stderr: &errs, Unsafe: true, Interrupt: interrupt,
		Diags: func(ds []syntax.Diag) {
			for _, d := range ds {
				errs.Write([]byte(d.Error() + "\n" + d.Hint + "\n"))
			}
		}})
	close(stop)
	<-done
	if err != nil {
		t.Errorf("%s\n%v\n%s", src, err, errs.String())
	}
	return out.String(), errs.String()
}

// as runs f on a thread named comm.
func as(comm string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		b := append([]byte(comm), 0)
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
		f()
	}()
	<-done
}

func readFile() {
	if f, err := os.Open("/proc/self/comm"); err == nil {
		f.Read(make([]byte, 832))
		f.Close()
	}
}

// loopback sends a datagram to a port nobody listens on.
func loopback() {
	if c, err := net.Dial("udp", "127.0.0.1:4096"); err == nil {
		c.Write([]byte("x"))
		c.Close()
	}
}

// requestPrograms are the programs of the request's documents, unchanged, and some more.
var requestPrograms = []struct {
	name, src string
	needs     []ktest.Feature
	work      func()
	want      string // regular expression on standard output
	wantErr   string // and on standard error
}{
	{name: "S3 hello", src: `BEGIN { printf("hello, World!\n"); }`,
		want: `^hello, World!\n`, wantErr: `Attach`},
	{name: "S3 kprobe", needs: []ktest.Feature{ktest.Kprobe, ktest.BTF},
		src:  `k:vfs_read { printf("%s/%d\n", comm, pid) ; }`,
		work: readFile, want: `^\S+/\d+\n`},
	{name: "S3 kprobe with both stacks", needs: []ktest.Feature{ktest.Kprobe, ktest.BTF},
		src: "#!/bin/env bpftrace\n\n" + `kprobe:__x64_sys_read /comm=="foo"/
{
        printf("hello read(%d, %s, %zu) %s/%d [%s] [%s]\n",
                arg0, str(arg1), arg2, comm, pid, kstack, ustack);
}
`,
		work: func() { as("foo", readFile) }, want: `hello read\(-?\d+, .*\) foo/\d+ \[\n(.*\n)*\s+do_syscall_64\+\d+\n(.*\n)*\] \[\n`, wantErr: `pt_regs`},
	{name: "S3 tracepoint", needs: []ktest.Feature{ktest.Tracepoint},
		src: "#!/bin/env bpftrace\n\n" + `tracepoint:syscalls:sys_enter_read /comm=="foo"/
{
        printf("hello read(%d, %s, %zu) %s/%d [%s] [%s]\n",
                args->fd, str(args->buf), args->count, comm, pid, kstack, ustack);
}
`,
		work: func() { as("foo", readFile) }, want: `hello read\(\d+, .*, 832\) foo/\d+ \[\n(.*\n)*\s+do_syscall_64\+\d+\n(.*\n)*\] \[\n`},
	{name: "S0 receive on lo", needs: []ktest.Feature{ktest.Tracepoint},
		src:  `tracepoint:net:netif_receive_skb /str(args->name) == "lo"/ { printf("%s: %s\n", comm, str(args->name)); }`,
		work: loopback, want: `^\S+: lo\n`},
	{name: "S0 packet type", needs: []ktest.Feature{ktest.Tracepoint, ktest.BTF},
		src:  `tracepoint:net:netif_receive_skb /str(args->name) == "lo" && comm=="strategy"/ { printf("%s: %d\n", comm, ((struct sk_buff*)(args->skbaddr))->pkt_type); }`,
		work: func() { as("strategy", loopback) }, want: `^strategy: 0\n`},
	{name: "S0 kprobe ip_rcv", needs: []ktest.Feature{ktest.Kprobe, ktest.BTF},
		src:  `kprobe:ip_rcv /comm=="nc"/ { printf("%s\n", ((struct net_device*)arg1)->name); }`,
		work: func() { as("nc", loopback) }, want: `^lo\n`},
	{name: "kretprobe", needs: []ktest.Feature{ktest.Kprobe},
		src: `kretprobe:vfs_read { @[comm] = hist(retval); } interval:ms:500 { exit(); }`, work: readFile, want: `@\[.*\]:\n.*\|@+`},
	{name: "kprobe.multi", needs: []ktest.Feature{ktest.KprobeMulti},
		src: `kprobe:vfs_* { @[probe] = count(); } interval:ms:500 { exit(); }`, work: readFile, want: `@\[kprobe:vfs_read\]: \d+`},
	{name: "many kprobes", needs: []ktest.Feature{ktest.Kprobe},
		src: `kprobe:vfs_re* { @[func] = count(); } interval:ms:500 { exit(); }`, work: readFile, want: `@\[vfs_read\]: \d+`},
	{name: "fentry", needs: []ktest.Feature{ktest.Fentry},
		src: `fentry:vfs_read { printf("%d %s\n", args.count, str(args.file->f_path.dentry->d_name.name)); exit(); }`, work: readFile, want: `^\d+ `},
	{name: "fexit", needs: []ktest.Feature{ktest.Fentry},
		src: `fexit:vfs_read { printf("%d of %d\n", retval, args.count); exit(); }`, work: readFile, want: `^-?\d+ of \d+\n`},
	{name: "rawtracepoint", needs: []ktest.Feature{ktest.RawTracepoint, ktest.BTF},
		src: `rawtracepoint:sched_switch { printf("%s\n", str(args.next->comm)); exit(); }`, want: `.`},
	{name: "profile", needs: []ktest.Feature{ktest.Profile},
		src: `profile:hz:99 { @[cpu] = count(); } interval:ms:500 { exit(); }`, want: `@\[\d+\]: \d+`},
}

// TestRequestPrograms runs what the request's documents run, on every kernel that can.
func TestRequestPrograms(t *testing.T) {
	for _, tt := range requestPrograms {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			ktest.Need(t, append(tt.needs, ktest.Ringbuf)...)
			out, errs := runProgram(t, tt.src, tt.work, regexp.MustCompile(tt.want))
			if !regexp.MustCompile(tt.want).MatchString(out) {
				t.Errorf("%s\noutput:\n%s\nwant: %s\nstderr:\n%s", tt.src, out, tt.want, errs)
			}
			if !regexp.MustCompile(tt.wantErr).MatchString(errs) {
				t.Errorf("%s\nstderr:\n%s\nwant: %s", tt.src, errs, tt.wantErr)
			}
		})
	}
}
