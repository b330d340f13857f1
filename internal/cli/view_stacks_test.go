package cli

import (
	"bytes"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/record"
)

// whoCalls asks for its parent from a thread of its own, which is what is recorded.
//
//go:noinline
func whoCalls(tid chan<- int, begin <-chan bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid <- unix.Gettid()
	<-begin
	for range 50 {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	close(tid)
}

// TestViewUserStacks: the functions of a program that was recorded are in the text, and in what draws flame graphs.
func TestViewUserStacks(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	tid, begin := make(chan int), make(chan bool)
	go whoCalls(tid, begin)
	dir := filepath.Join(t.TempDir(), "r")
	r, err := record.Start(record.Options{Dir: dir, Events: []record.Spec{{Pattern: "syscall:getppid"}}, Stacks: record.Stacks{User: true}, PIDs: []int{<-tid},
		Leases: lease.Dir{Path: filepath.Join(t.TempDir(), "leases")}})
	if err != nil {
		close(begin)
		t.Fatal(err)
	}
	close(begin)
	<-tid
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	const name = "cli.whoCalls"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"view", dir, "-q"}, "/" + name + "\n"},
		{[]string{"view", dir, "-q", "-e", "sys_enter", "--to", "folded"}, "/" + name + ";"},
		{[]string{"view", dir, "-q", "-e", "sys_enter", "--to", "flame"}, "/" + name},
	} {
		var out bytes.Buffer
		c := root()
		c.SetOut(&out)
		c.SetArgs(tt.args)
		if err := c.Execute(); err != nil || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%v: %v\n%s", tt.args, err, out.String())
		}
	}
}
