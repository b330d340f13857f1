package script

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/record"
)

// marked is what the thread of the name does that programs look for.
func marked() {
	for range 5000 {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_LSEEK, 1000, 7, 99)
	}
}

const markedProgram = `
tracepoint:raw_syscalls:sys_enter /comm == "marked"/ {
	@calls[args.id] = count();
	@sum[args.id] = sum(args.args[0] + args.args[1]);
	@max[tid == pid, probe] = max(args.id);
	@ids = hist(args.id);
	@cpus[args.id < 0] = count();
	@entered[tid] = nsecs;
	if (args.id == 110 || args.id == 8) { // what the runtime does between may be within a signal
		@from[kstack, args.id] = count();
		@by[ustack(4), args.id] = count();
	}
}
tracepoint:raw_syscalls:sys_exit /comm == "marked" && @entered[tid]/ {
	@returned[args.id, args.ret < 0] = count();
	delete(@entered, tid);
}
end { clear(@entered); }
`

// TestLiveAndRecorded asks the same of the running kernel and of a recording of the same calls: the answers are equal.
func TestLiveAndRecorded(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint, ktest.BTF)
	dir := t.TempDir()
	specs, stacks, ds := Asks(&syntax.Source{Name: "stdin", Text: markedProgram})
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	k, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	symbol := func(a uint64) (string, uint64, uint64, string, bool) {
		name, off, ok := k.Symbolise(a)
		return name, off, 0, "", ok
	}
	r, err := record.Start(record.Options{Dir: filepath.Join(dir, "r"), Events: specs, Stacks: stacks, Symbol: symbol, PIDs: []int{os.Getpid()},
		Leases: lease.Dir{Path: filepath.Join(dir, "leases")}})
	if err != nil {
		t.Fatal(err)
	}
	var out, errs syncBuffer
	interrupt := make(chan os.Signal, 1)
	done := make(chan error, 1)
	src := &syntax.Source{Name: "stdin", Text: markedProgram}
	diags := func(ds []syntax.Diag) {
		for _, d := range ds {
			t.Error(d.Error())
		}
	}
	go func() {
		_, err := Run(context.Background(), Options{Source: src, Stdout: &out, Stderr: &errs, Notify: true, Interrupt: interrupt, Diags: diags})
		done <- err
	}()
	if !await(&out, "__BPFTRACE_NOTIFY_PROBES_ATTACHED", 1) {
		t.Error("no probes are attached")
	}
	as("marked", marked)
	interrupt <- os.Interrupt
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	acc, err := r.Stop()
	if err != nil || acc.Missed > 0 || !acc.Exact {
		t.Fatalf("recording: %+v, %v", acc, err)
	}
	tr, err := record.Open(filepath.Join(dir, "r"))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	var again, errs2 syncBuffer
	if _, err := Run(context.Background(), Options{Source: src, Recording: tr, Stdout: &again, Stderr: &errs2, Diags: diags}); err != nil {
		t.Fatal(err)
	}
	clean := func(s string) string {
		return strings.TrimSpace(strings.ReplaceAll(s, "__BPFTRACE_NOTIFY_PROBES_ATTACHED\n", ""))
	}
	if d := cmp.Diff(clean(out.String()), clean(again.String())); d != "" {
		t.Errorf("live and recorded differ: %s", d)
	}
	if s := again.String(); !strings.Contains(s, "script.marked+") || !strings.Contains(s, "do_syscall_64+") {
		t.Errorf("stacks without names: %s", s)
	}
	if !strings.Contains(again.String(), "@calls[110]: 5000") || !strings.Contains(again.String(), "@sum[8]: 5035000") {
		t.Errorf("the recording says: %s %s", again.String(), errs2.String())
	}
}

// TestAsks: what a program needs is recorded, and what nobody can record is told.
func TestAsks(t *testing.T) {
	for src, want := range map[string]string{
		"tracepoint:net:net_dev_queue, t:skb:* { @ = count(); } BEGIN { @ = 0; } end { }": "net:net_dev_queue skb:*",
		"t:skb:a { if (cpu == 0) { @[ustack] = count(); } }":                              "skb:a {false true}",
		"macro m() { kstack(3) } t:skb:a { @[ustack(perf), m()] = count(); }":             "skb:a {true true}",
		"kprobe:vfs_read { @ = count(); }":                                                "! kprobe:vfs_read cannot be recorded",
		"BEGIN { exit(); }":                                                               "! the program asks for no event",
		"tracepoint:a:b {":                                                                "! ",
	} {
		specs, stacks, ds := Asks(&syntax.Source{Name: "stdin", Text: src})
		var got []string
		for _, s := range specs {
			got = append(got, s.Pattern)
		}
		if stacks.Kernel || stacks.User {
			got = append(got, fmt.Sprint(stacks))
		}
		if len(ds) > 0 {
			got = []string{"!", ds[0].Msg}
		}
		if !strings.HasPrefix(strings.Join(got, " "), want) {
			t.Errorf("%s: %v", src, got)
		}
	}
}

// TestRecordedRefuses: what a recording does not have is refused where the program asks for it.
func TestRecordedRefuses(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	dir := t.TempDir()
	r, err := record.Start(record.Options{Dir: filepath.Join(dir, "r"), Events: []record.Spec{{Pattern: "skb:kfree_skb"}, {Pattern: "sched:sched_switch"}},
		Leases: lease.Dir{Path: filepath.Join(dir, "leases")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ src, want string }{
		{"tracepoint:skb:kfree_skb { @[kstack] = count(); }", "kstack has no answer here: these stacks were not recorded"},
		{"tracepoint:skb:kfree_skb { print(str(args.skbaddr)); }", "This follows a pointer that was recorded"},
		{"tracepoint:skb:kfree_skb { $p = (int32 *)args.skbaddr; @ = *$p; }", "This follows a pointer that was recorded"},
		{"kprobe:vfs_read { @ = count(); }", "nothing happens in a recording but what was recorded"},
		{"interval:s:1 { @ = count(); }", "nothing happens in a recording but what was recorded"},
		{"tracepoint:net:net_dev_queue { @ = count(); }", "tracepoint:net:net_dev_queue was not recorded"},
		{"tracepoint:skb:kfree_skb { @[uid] = count(); }", "uid has no answer here"},
		{"tracepoint:skb:kfree_skb { @[args.skbaddr, args.protocol] = count(); @c[comm, pid, tid, cpu, nsecs] = count(); }", ""},
		{`tracepoint:sched:sched_switch { @[args.prev_comm, str(args.next_comm), strftime("%H", nsecs)] = count(); }`, ""},
	} {
		tr, err := record.Open(filepath.Join(dir, "r"))
		if err != nil {
			t.Fatal(err)
		}
		var out, errs syncBuffer
		said := ""
		_, err = Run(context.Background(), Options{Source: &syntax.Source{Name: "stdin", Text: tt.src}, Recording: tr, Stdout: &out, Stderr: &errs,
			Diags: func(ds []syntax.Diag) {
				for _, d := range ds {
					said += d.Error() + "\n"
				}
			}})
		if tt.want == "" && err != nil || !strings.Contains(said, tt.want) {
			t.Errorf("%s\n%v: %s", tt.src, err, said)
		}
		tr.Close()
	}
}
