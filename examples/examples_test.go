package examples_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/examples"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/lang/syntax"
)

var guests ktest.Config

func TestMain(m *testing.M) {
	code := 0
	defer func() { os.Exit(code) }()
	if len(os.Args) > 1 { // what the workload starts
		switch os.Args[1] {
		case "nothing":
			return
		case "victim":
			victim()
			return
		}
	}
	disk := ""
	if os.Getenv(ktest.EnvGuests) != "" { // set where guests are started, not in them
		dir, err := os.MkdirTemp("", "examples")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		disk = xfsDisk(dir)
		defer os.RemoveAll(dir)
	}
	guests = guestConfig(disk)
	code = ktest.Run(m, guests)
}

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

func TestFind(t *testing.T) {
	tools := examples.Tools()
	if len(tools) != 40 { // bpftrace's 39, and readsnoop
		t.Errorf("%d tools", len(tools))
	}
	for _, tool := range tools {
		if tool.Doc == "" || !strings.HasPrefix(tool.Text, "#!/usr/bin/env bpftrace\n// ") {
			t.Errorf("%s does not say what it is", tool.Name)
		}
		file, ds := syntax.Parse(&syntax.Source{Name: tool.Name, Text: tool.Text})
		if len(ds) > 0 || len(file.Probes) == 0 {
			t.Errorf("%s: %v", tool.Name, ds)
		}
	}
	if _, ok := examples.Find("../examples"); ok {
		t.Error("found what is no tool")
	}
}

// runs are the tools under a workload: what they must print besides their headings.
var runs = []struct {
	name  string
	needs []ktest.Feature
	want  string
	block bool                            // needs a block device
	work  func(*testing.T, chan struct{}) // what else is to be done meanwhile: in guests only
}{
	{"biolatency", nil, `@usecs:\s+\[`, true, nil},
	{"biolatency-kp", []ktest.Feature{ktest.Kprobe}, `@usecs:\s+\[`, true, nil},
	{"biosnoop", nil, `(?m)^\d+ +\S+ +\d+ +\d+:\d+ +W`, true, nil},
	{"biostacks", nil, `(?s)@usecs\[.*blk.*\]:\s+\[`, true, nil},
	{"bitesize", nil, `(?m)^@\[.*\]:$`, true, nil},
	{"capable", []ktest.Feature{ktest.Kprobe}, `(?m)^\d\d:\d\d:\d\d +0 +\d+ +\S+ +\d+ +\w+ +[01]`, false, nil},
	{"cpuwalk", []ktest.Feature{ktest.Profile}, `@cpu:\s+\[`, false, nil},
	{"dcsnoop", []ktest.Feature{ktest.Kprobe, ktest.BTF}, `(?m) M no_such_file_\d+`, false, nil},
	{"execsnoop", []ktest.Feature{ktest.BTF}, `(?m)^\d\d:\d\d:\d\d\.\d+ +\d+ +\d+ .* nothing$`, false, nil},
	{"killsnoop", nil, `(?m) User defined signal 2 +\d+ +0`, false, nil},
	{"loads", []ktest.Feature{ktest.Kprobe}, `load averages: \d+\.\d{3} \d+\.\d{3} \d+\.\d{3}`, false, nil},
	{"naptime", []ktest.Feature{ktest.BTF}, ` 0\.011`, false, nil},
	{"opensnoop", nil, `(?m)-1   2 /tmp/no_such_file_\d+`, false, nil},
	{"pidpersec", nil, `new tasks: [1-9]`, false, nil},
	{"readsnoop", nil, `(?m) +5 hello$`, false, nil},
	{"runqlat", nil, `@usecs:\s+\[`, false, nil},
	{"runqlen", []ktest.Feature{ktest.Kprobe, ktest.BTF}, `@tasks:\s+\[`, false, nil},
	{"setuids", nil, ` setuid +0 `, false, nil},
	{"statsnoop", nil, `(?m) 2 /tmp/no_such_file_\d+`, false, nil},
	{"syncsnoop", nil, ` fsync`, false, nil},
	{"syscount", nil, `(?s)System calls:.*@call\[\w+\]: \d+.*Programs:.*@program\[.*\]: \d+`, false, nil},
	{"tcpaccept", []ktest.Feature{ktest.Kprobe, ktest.BTF}, `127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+ +\d+/\d+`, false, nil},
	{"tcpconnect", nil, `(?m) 127\.0\.0\.1 +\d+$`, false, nil},
	{"tcplife", []ktest.Feature{ktest.BTF}, `127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+ +\d+ +\d+ \d+`, false, nil},
	{"tcpsynbl", []ktest.Feature{ktest.Kprobe, ktest.BTF}, `(?m)^@backlog\[\d+\]:`, false, nil},
	{"undump", []ktest.Feature{ktest.Kprobe, ktest.BTF}, ` 5 +hello`, false, nil},
	{"vfscount", []ktest.Feature{ktest.Kprobe}, `@\[vfs_read\]: \d+`, false, nil},
	{"vfsstat", []ktest.Feature{ktest.Kprobe}, `@\[vfs_read\]: \d+`, false, nil},
	{"oomkill", []ktest.Feature{ktest.Modules}, `OOM kill of PID \d+`, false, outOfMemory},
	{"tcpdrop", []ktest.Feature{ktest.BTF, ktest.Modules}, `10\.99\.0\.1:\d+ +10\.99\.0\.2:\d+`, false, blackhole},
	{"tcpretrans", []ktest.Feature{ktest.Modules}, `(?m)10\.99\.0\.2 +\d+ +2$`, false, blackhole},
	{"writeback", []ktest.Feature{ktest.Modules}, `(?m)^\d\d:\d\d:\d\d +\S+ +\d+ +sync `, false, writeBack},
	{"swapin", []ktest.Feature{ktest.Kprobe, ktest.Modules}, `@\[.*\]: [1-9]`, false, swap},
	{"mdflush", []ktest.Feature{ktest.Kprobe, ktest.Modules}, `(?m)^\d\d:\d\d:\d\d +\d+ +\S+ +0x[0-9a-f]+`, false, mirror},
	{"xfsdist", []ktest.Feature{ktest.Kprobe, ktest.Modules}, `@usecs\[xfs_file_write_iter\]:\s+\[`, false, xfs},
}

func TestTools(t *testing.T) {
	ktest.Need(t, ktest.Tracepoint, ktest.Ringbuf)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { work(t, stop) })
	defer wg.Wait()
	defer close(stop)
	signal.Ignore(syscall.SIGUSR2)
	defer signal.Reset(syscall.SIGUSR2)
	for _, tt := range runs {
		t.Run(tt.name, func(t *testing.T) {
			ktest.Need(t, tt.needs...)
			if _, err := os.Stat("/dev/nullb0"); tt.block && err != nil {
				if ktest.InGuest() {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			if tt.work != nil {
				if !ktest.InGuest() {
					t.Skip("not on a machine that somebody uses")
				}
				defer meanwhile(t, tt.work)()
			}
			prints(t, tt.name, tt.want)
		})
	}
}

// meanwhile starts work; what it returns ends it and waits for its end.
func meanwhile(t *testing.T, work func(*testing.T, chan struct{})) func() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		work(t, stop)
	}()
	return func() {
		close(stop)
		<-done
	}
}

// prints runs a tool until it has printed what is wanted.
func prints(t *testing.T, name, want string) {
	t.Helper()
	tool, ok := examples.Find(name)
	if !ok {
		t.Fatal("no such tool")
	}
	re := regexp.MustCompile(want)
	var out, errs string
	for _, limit := range []time.Duration{time.Second, 10 * time.Second, time.Minute} { // most tools print at their end: a second is enough, if not too much else is done
		if out, errs = run(t, tool, re, limit); re.MatchString(out) {
			return
		}
	}
	t.Errorf("output:\n%s\nwant: %s\nstderr:\n%s", out, want, errs)
}

// run runs a tool until it printed what is wanted or limit has gone, then ends it as Ctrl-C does.
func run(t *testing.T, tool examples.Tool, want *regexp.Regexp, limit time.Duration) (stdout, stderr string) {
	var out, errs buffer
	interrupt := make(chan os.Signal, 1)
	ctx, cancel := context.WithTimeout(t.Context(), limit+2*time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		attached := time.Time{}
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if attached.IsZero() && strings.Contains(out.String(), "PROBES_ATTACHED") {
				attached = time.Now()
			}
			if !attached.IsZero() && (time.Since(attached) > limit || want.MatchString(out.String())) {
				interrupt <- syscall.SIGINT
				return
			}
		}
	}()
	_, err := script.Run(ctx, script.Options{
		Source: &syntax.Source{Name: tool.Name, Text: tool.Text}, Stdout: &out, Stderr: &errs, Interrupt: interrupt, Notify: true,
		Diags: func(ds []syntax.Diag) {
			for _, d := range ds {
				errs.Write([]byte(d.Error() + "\n"))
			}
		},
	})
	close(done)
	if err != nil {
		t.Errorf("%v\n%s", err, errs.String())
	}
	return out.String(), errs.String()
}

// buffer may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// work does a little of everything, over and over.
func work(t *testing.T, stop chan struct{}) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
	self, _ := os.Executable()
	dir := t.TempDir()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		files(dir, n)
		exec.Command(self, "nothing").Run()
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Read(make([]byte, 16))
			c.Close()
		}
		pair()
		unix.Kill(os.Getpid(), syscall.SIGUSR2)
		unix.RawSyscall(unix.SYS_SETUID, 0, 0, 0) // of this thread, which is root already
		ts := unix.NsecToTimespec(11e6)
		unix.Nanosleep(&ts, nil)
		device()
	}
}

// files looks for what is not there, and writes a file through.
func files(dir string, n int) {
	missing := filepath.Join("/tmp", "no_such_file_"+string(rune('0'+n%10)))
	os.Stat(missing)
	os.Open(missing)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		return
	}
	f.Write(bytes.Repeat([]byte("x"), 4096))
	f.Sync()
	f.Close()
	os.ReadFile(f.Name())
}

// pair sends five bytes through a pair of UNIX sockets.
func pair() {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	unix.Write(fds[0], []byte("hello"))
	unix.Read(fds[1], make([]byte, 8))
	unix.Close(fds[0])
	unix.Close(fds[1])
}

// device writes to a block device that forgets everything.
func device() {
	f, err := os.OpenFile("/dev/nullb0", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	f.Write(bytes.Repeat([]byte{1}, 64<<10))
	f.Sync()
}

// TestAllRun sees that no tool is left without a workload.
func TestAllRun(t *testing.T) {
	tested := map[string]bool{}
	for _, r := range runs {
		tested[r.name] = true
	}
	for _, r := range userRuns {
		tested[r.name] = true
	}
	for _, tool := range examples.Tools() {
		if !tested[tool.Name] {
			t.Errorf("%s is not run", tool.Name)
		}
	}
}
