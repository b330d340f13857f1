package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
	"github.com/fathom-trace/fathom/usersym"
)

// Environment by which this test binary is a keeper, or a workload of calls.
const (
	keeperEnv = "FATHOM_TEST_KEEPER"
	callsEnv  = "FATHOM_TEST_CALLS"
)

var guests = ktest.Config{}

func TestMain(m *testing.M) {
	if os.Getenv(keeperEnv) != "" {
		if err := Keep(context.Background(), os.Stdin, os.Stdout, Names{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if how := os.Getenv(powerEnv); how != "" {
		if err := powered(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if n, _ := strconv.Atoi(os.Getenv(callsEnv)); n > 0 {
		runtime.LockOSThread()
		if err := os.WriteFile("/proc/thread-self/comm", []byte(callsComm(os.Getppid())), 0); err != nil {
			os.Exit(1)
		}
		for range n {
			_, _, _ = unix.RawSyscall(unix.SYS_GETSID, 0, 0, 0)
		}
		os.Exit(0)
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) {
	c := guests
	if os.Getenv(ktest.EnvGuests) != "" {
		c.Files = append(c.Files, ktest.Fathom(t))
	}
	ktest.Guests(t, c)
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{"web": true, "a.b-c_1": true, "": false, "-x": false, ".x": false, "a/b": false, "a b": false, strings.Repeat("x", 65): false} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := Clean(lease.Record{Name: "x", Data: []byte(`{"socket":"/etc/passwd"}`)}); err == nil {
		t.Error("cleaned a file that is no socket of the session")
	}
}

// home is a folder with a name that is short enough for sockets in it.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// create makes a session whose keeper is this program.
func create(t *testing.T, s Spec) Client {
	t.Helper()
	t.Setenv(keeperEnv, "1")
	st, err := Create([]string{"/proc/self/exe"}, s)
	os.Unsetenv(keeperEnv)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Find(lease.Dir{Path: s.Leases}, s.Name)
	if err != nil || st.State != created {
		t.Fatalf("%+v, %v", st, err)
	}
	t.Cleanup(func() {
		_, _ = c.Destroy()
		_, _ = unix.Wait4(st.PID, nil, 0, nil) // it is a child of ours: there is nobody else
	})
	return c
}

// calls has another process call getsid so many times.
func calls(t *testing.T, n int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", callsEnv, n))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// callsComm is what the task of calls is called: other tests call, too.
func callsComm(pid int) string { return fmt.Sprintf("calls%d", pid) }

// getsid is the event that counts calls.
var getsid = record.Spec{Pattern: "raw_syscalls:sys_enter", Filter: fmt.Sprintf("id == %d && comm == %q", unix.SYS_GETSID, callsComm(os.Getpid()))}

// count opens a recording and counts calls of getsid.
func count(t *testing.T, dir string) (n int, tr *record.Trace) {
	t.Helper()
	tr, err := record.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	s := tr.Events()
	last := uint64(0)
	for e := range traceevent.All(s) {
		if e.Time < last {
			t.Errorf("%s: an event of %d after one of %d", dir, e.Time, last)
		}
		last = e.Time
		if e.Format != nil && e.Format.Name == "sys_enter" && e.Format.Field("id").Int(e.Rec) == unix.SYS_GETSID {
			n++
		}
	}
	if s.Err() != nil {
		t.Errorf("%s: %v", dir, s.Err())
	}
	return n, tr
}

func must(t *testing.T) func(Status, error) Status {
	return func(s Status, err error) Status {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// TestSession: what happens while a session records is in it once, through rotations and stops, and nothing else is left.
func TestSession(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	ok, dir := must(t), home(t)
	c := create(t, Spec{Name: "one", Dir: filepath.Join(dir, "out"), Leases: filepath.Join(dir, "leases")})
	if _, err := c.Start(); err == nil {
		t.Error("started without events")
	}
	if _, err := c.Enable([]record.Spec{{Pattern: "nosuch_event"}}); err == nil {
		t.Error("an event that does not exist was enabled")
	}
	if st := ok(c.Enable([]record.Spec{getsid, {Pattern: "nosuch_*"}})); len(st.Waiting) != 1 {
		t.Errorf("%+v", st)
	}
	ok(c.Start())
	const n = 2000
	calls(t, n)
	ok(c.Rotate())
	calls(t, n)
	ok(c.Enable([]record.Spec{{Pattern: "sched:sched_process_exec"}}))
	calls(t, n)
	ok(c.Stop())
	calls(t, n) // not recorded
	ok(c.Start())
	calls(t, n)
	st := ok(c.Stop())
	acc := st.Account()
	if len(st.Segments) != 4 || !acc.Exact || acc.Missed != 0 {
		t.Errorf("%+v, %+v", st, acc)
	}
	got, tr := count(t, st.Dir)
	if got < 4*n || got > 4*n+40 || len(tr.Notes) > 0 || tr.Account.Events != acc.Events {
		t.Errorf("%d calls of %d, %v, account %+v", got, 4*n, tr.Notes, tr.Account)
	}
	for _, g := range st.Segments {
		if got, _ := count(t, g.Dir); got < n || got > n+20 {
			t.Errorf("%s: %d calls of %d", g.Dir, got, n)
		}
	}
	ok(c.Destroy())
	nothingLeft(t, st.PID)
	if !ktest.InGuest() { // which has no babeltrace2
		out, err := exec.Command(ktest.Oracle(t, "babeltrace2"), st.Dir).Output()
		if lines := strings.Count(string(out), "\n"); err != nil || uint64(lines) != acc.Events {
			t.Errorf("babeltrace2 reads %d events of %d: %v", lines, acc.Events, err)
		}
	}
	if _, err := Find(lease.Dir{Path: filepath.Join(dir, "leases")}, ""); err == nil {
		t.Error("the session is still listed")
	}
}

// nothingLeft looks for tracing instances of a keeper.
func nothingLeft(t *testing.T, pid int) {
	t.Helper()
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	if left, err := filepath.Glob(filepath.Join(fs.Root, "instances", fmt.Sprintf("fathom-%d-*", pid))); len(left) > 0 || err != nil {
		t.Errorf("left in tracefs: %v, %v", left, err)
	}
}

// TestCaps: segments end by size, and the oldest go.
func TestCaps(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	ok, dir := must(t), home(t)
	c := create(t, Spec{Name: "caps", Dir: filepath.Join(dir, "out"), Leases: filepath.Join(dir, "leases"), SegmentBytes: 64 << 10, Keep: 2})
	ok(c.Enable([]record.Spec{getsid}))
	st := ok(c.Start())
	for deadline := time.Now().Add(time.Minute); st.Removed < 2 && time.Now().Before(deadline); st = ok(c.Status()) {
		calls(t, 5000)
	}
	st = ok(c.Stop())
	left, err := filepath.Glob(filepath.Join(st.Dir, "segment-*"))
	if err != nil || len(left) != 2 || len(st.Segments) != 2 || st.Removed < 2 {
		t.Errorf("%v %v, %+v", left, err, st)
	}
	if got, _ := count(t, st.Dir); got == 0 {
		t.Error("nothing is left")
	}
}

// TestSegments: a recording of this process goes on in segments, of which each is a recording, and the caps take the oldest.
func TestSegments(t *testing.T) {
	ktest.Need(t, ktest.Tracepoint)
	dir := filepath.Join(home(t), "r")
	s, err := NewSegments(Spec{Name: "r", Dir: dir, SegmentTime: time.Hour, Keep: 2}, record.Options{Events: []record.Spec{getsid}, BufferKB: 64, Leases: lease.Dir{Path: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	const each, segments = 50, 4
	for i := range segments {
		calls(t, each)
		if i == segments-1 {
			break
		}
		s.spec.SegmentTime = 1 // the next look finds it over
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		s.spec.SegmentTime = time.Hour
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	}
	acc, removed, err := s.Stop()
	if err != nil || acc.Events != each*segments || !acc.Exact || acc.Missed != 0 || removed != segments-2 {
		t.Errorf("%+v, %d removed: %v", acc, removed, err)
	}
	if n, tr := count(t, dir); n != 2*each || tr.Account.Events != 2*each {
		t.Errorf("%d calls in the segments that are kept: %+v", n, tr.Account)
	}
	if n, _ := count(t, filepath.Join(dir, "segment-0004")); n != each {
		t.Errorf("%d calls in the last segment", n)
	}
	if _, err := NewSegments(Spec{Name: "r", Dir: dir}, record.Options{}); !errors.Is(err, record.ErrRecorded) {
		t.Errorf("into the same folder: %v", err)
	}
	nothing := filepath.Join(home(t), "nothing")
	if _, err := NewSegments(Spec{Name: "n", Dir: nothing}, record.Options{Events: []record.Spec{{Pattern: "no_such:event"}}, Leases: lease.Dir{Path: t.TempDir()}}); err == nil {
		t.Error("it records an event that there is not")
	} else if _, err := os.Stat(nothing); err == nil {
		t.Error("its folder stays")
	}
}

// TestFlight: a snapshot has the latest events and says what it lacks; an anomaly takes one by itself.
func TestFlight(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	ok, dir := must(t), home(t)
	when := record.Spec{Pattern: "raw_syscalls:sys_enter", Filter: fmt.Sprintf("id == %d", unix.SYS_SETFSUID)}
	c := create(t, Spec{Name: "flight", Dir: filepath.Join(dir, "out"), Leases: filepath.Join(dir, "leases"), Flight: true, BufferKB: 64, When: &when})
	ok(c.Enable([]record.Spec{getsid}))
	ok(c.Start())
	calls(t, 20000) // more than the rings hold
	st := ok(c.Snapshot())
	acc := st.Account()
	got, _ := count(t, st.Dir)
	if got == 0 || acc.Before == 0 || acc.Missed != 0 || uint64(got) != acc.Events {
		t.Errorf("%d calls, %+v", got, acc)
	}
	calls(t, 100)
	if _, err := c.Rotate(); err == nil {
		t.Error("a flight recorder was rotated")
	}
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if st = ok(c.Status()); len(st.Segments) > 1 && st.Segments[1].Account != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(st.Segments) < 2 {
		t.Fatalf("no snapshot was taken: %+v", st)
	}
	if got, _ := count(t, st.Segments[1].Dir); got < 100 || got > 110 {
		t.Errorf("%d calls of 100 around the anomaly", got)
	}
}

// called is a function that is made an event of while a session records; the linker knows it as calledName.
//
//go:noinline
func called() { calledTimes++ }

var calledTimes int

const calledName = "github.com/fathom-trace/fathom/record/session.called"

// TestLater: events that a pattern means are recorded from the moment on that they are there.
func TestLater(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint, ktest.Uprobe)
	ok, dir := must(t), home(t)
	u := usersym.New(usersym.Options{})
	defer u.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	off, _, _, found := u.SymbolAddr(self, calledName)
	if !found {
		t.Fatal("no symbol of this program")
	}
	c := create(t, Spec{Name: "later", Dir: filepath.Join(dir, "out"), Leases: filepath.Join(dir, "leases")})
	ok(c.Enable([]record.Spec{{Pattern: fmt.Sprintf("fathom_%d_*", os.Getpid())}}))
	if st := ok(c.Start()); st.State != waiting {
		t.Errorf("%+v", st)
	}
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	made, err := fs.NewDynamic(lease.Dir{Path: filepath.Join(dir, "leases")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := made.Add("p", "called", fmt.Sprintf("%s:0x%x", self, off), ""); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ok(c.Status()).State != recording && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	for range 50 {
		called()
	}
	st := ok(c.Destroy())
	if acc := st.Account(); acc.Events != 50 || !acc.Exact {
		t.Errorf("%+v, %+v", st, acc)
	}
}

// TestKilled kills keepers at any moment, also while they finish a segment: all that was closed is there, of the rest at most the last
// second is missing and that is said, and nothing is left in tracefs.
func TestKilled(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	kills, _ := strconv.Atoi(os.Getenv("FATHOM_KILLS"))
	for i := range max(kills, 3) {
		ok, dir := must(t), home(t)
		leases := lease.Dir{Path: filepath.Join(dir, "leases")}
		c := create(t, Spec{Name: "killed", Dir: filepath.Join(dir, "out"), Leases: leases.Path})
		ok(c.Enable([]record.Spec{getsid}))
		ok(c.Start())
		const n = 5000
		calls(t, n)
		st := ok(c.Rotate())
		calls(t, n)
		least := n
		if i == 0 { // what is older than a second is on the disk
			least = 2 * n
			for deadline := time.Now().Add(time.Minute); written(t, st.Dir) < least && time.Now().Before(deadline); {
				time.Sleep(50 * time.Millisecond)
			}
		}
		time.Sleep(time.Duration(i*7%50) * time.Millisecond)
		kill(t, st.PID)
		if _, err := c.Status(); err == nil {
			t.Error("a killed keeper answers")
		}
		if _, err := leases.Clean(map[string]lease.Cleaner{LeaseKind: Clean, tracefs.LeaseKind: tracefs.CleanInstance}); err != nil {
			t.Error(err)
		}
		nothingLeft(t, st.PID)
		got, tr := count(t, st.Dir)
		if got < least || got > 2*n+20 || len(tr.Notes) == 0 {
			t.Errorf("%d calls of %d, %v", got, 2*n, tr.Notes)
		}
	}
}

// written is how many calls of getsid a recording has that is going on.
func written(t *testing.T, dir string) (n int) {
	t.Helper()
	tr, err := record.Open(dir)
	if err != nil {
		t.Log(err)
		return 0
	}
	defer tr.Close()
	for e := range traceevent.All(tr.Events()) { // the last page may be half there
		if e.Format != nil && e.Format.Name == "sys_enter" && e.Format.Field("id").Int(e.Rec) == unix.SYS_GETSID {
			n++
		}
	}
	return n
}

// kill ends a process that is not a child any more, and waits until it has gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 10000); err != nil {
		t.Fatal(err)
	}
}

// TestFull: a disk that is full ends the recording; what was written is there, and why it ended.
func TestFull(t *testing.T) {
	ktest.NeedGuest(t, ktest.Tracefs, ktest.Tracepoint)
	ok, dir := must(t), home(t)
	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(small, unix.MNT_DETACH) }()
	c := create(t, Spec{Name: "full", Dir: filepath.Join(small, "out"), Leases: filepath.Join(dir, "leases")})
	ok(c.Enable([]record.Spec{getsid}))
	st := ok(c.Start())
	calls(t, 1000)
	st = ok(c.Rotate())
	for deadline := time.Now().Add(time.Minute); st.State == recording && time.Now().Before(deadline); st = ok(c.Status()) {
		calls(t, 20000)
	}
	if st.State != failed || !strings.Contains(st.Error, "no space") {
		t.Errorf("%+v", st)
	}
	if got, _ := count(t, st.Segments[0].Dir); got < 1000 || got > 1020 {
		t.Errorf("%d calls of 1000 in the segment that was closed", got)
	}
	if acc := st.Account(); !acc.Exact || acc.Left == 0 {
		t.Errorf("what was lost is not told: %+v", acc)
	}
	got, tr := count(t, st.Dir)
	if got < 20000 || tr.Account == nil || !strings.Contains(tr.Account.Error, "no space") {
		t.Errorf("%d calls, %v, %+v", got, tr.Notes, tr.Account)
	}
}

// TestLTTng runs LTTng's command lines as its documentation has them, with fathom under LTTng's names.
func TestLTTng(t *testing.T) {
	ktest.NeedGuest(t, ktest.Tracefs, ktest.Tracepoint)
	dir := home(t)
	for _, name := range []string{"lttng", "lttng-sessiond"} {
		if err := os.Symlink("/usr/bin/fathom", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "traces")
	run := func(line string) {
		t.Helper()
		words := strings.Fields(line)
		if b, err := exec.Command(filepath.Join(dir, words[0]), words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, b)
		}
	}
	run("lttng-sessiond --daemonize --extra-kmod-probes=isw,ipanema,netchan")
	run("lttng list -k")
	run("lttng create my_session --output=" + out)
	run("lttng enable-event -k isw_*,ipanema_*,netchan_*,skb_kfree,net_if_receive_skb")
	run("lttng enable-event -k raw_syscalls:sys_enter")
	run("lttng start")
	calls(t, 300)
	run("lttng stop")
	run("lttng destroy")
	if got, _ := count(t, out); got < 300 || got > 320 {
		t.Errorf("%d calls of 300", got)
	}
}
