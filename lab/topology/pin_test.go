package topology_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
)

// pinChild, as environment, makes the test binary a command that lab exec runs: its value is what to do, then the namespace,
// then the pin.
const pinChild = "FATHOM_PIN_CHILD"

// pinStep does one of the commands of TestPin and gives its exit code.
func pinStep(step string) int {
	at := os.Getenv(pinChild + "_AT")
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, step, err)
		return 1
	}
	if ns := os.Getenv(pinChild + "_NS"); ns != "" { // what lab exec does
		n, err := netns.Open(ns)
		if err != nil {
			return fail(err)
		}
		os.Setenv(pinChild+"_NS", "")
		return fail(n.Exec("/proc/self/exe", os.Args, os.Environ()))
	}
	var m *ebpf.Map
	var err error
	if step == "pin" {
		if m, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err == nil {
			err = m.Pin(at)
		}
	} else {
		m, err = ebpf.LoadPinnedMap(at, nil)
	}
	if err != nil {
		return fail(err)
	}
	defer m.Close()
	if step == "write" {
		if err := m.Put(uint32(0), uint32(4711)); err != nil {
			return fail(err)
		}
	}
	var v uint32
	if err := m.Lookup(uint32(0), &v); err != nil {
		return fail(err)
	}
	fmt.Print(v)
	return 0
}

// TestPin makes a pin in one command and finds it in the next two, in another host too: commands in a host of a lab have the
// machine's mounts, unlike those of ip netns exec, which get a /sys of their own each time.
func TestPin(t *testing.T) {
	l := labsOf(t, 1)
	ktest.Need(t, ktest.Ringbuf)
	if err := l.Up("pins", pairText); err != nil {
		t.Fatal(err)
	}
	lab, err := l.Find("pins")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Down(lab)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	for _, step := range []struct{ what, host, want string }{{"pin", "a", "0"}, {"write", "a", "4711"}, {"read", "b", "4711"}} {
		h, _ := lab.Host(step.host)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), pinChild+"="+step.what, pinChild+"_NS="+h.NS, pinChild+"_AT="+filepath.Join(dir, "map"))
		cmd.Stderr = os.Stderr
		if out, err := cmd.Output(); err != nil || string(out) != step.want {
			t.Fatalf("%s in %s: %v, printed %q, want %q", step.what, step.host, err, out, step.want)
		}
	}
}
