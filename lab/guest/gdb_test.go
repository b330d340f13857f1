package guest_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/kernel/remote"
	"github.com/fathom-trace/fathom/lab/guest"
)

// TestGDBStub: our client stops a live guest, reads it, and hits a hardware breakpoint.
func TestGDBStub(t *testing.T) {
	o := opts(t, "say")
	sock := filepath.Join(t.TempDir(), "gdb")
	o.QEMUArgs = append(o.QEMUArgs, "-gdb", "unix:"+sock+",server=on,wait=off")
	o.Linger = true
	g, err := guest.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Wait()
	defer g.Quit()
	select {
	case <-g.Ended():
	case <-g.Done():
		_, err := g.Wait()
		t.Fatal(err)
	}
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	k, err := remote.New(c)
	if err != nil {
		t.Fatal(err)
	}
	k.SetDeadline(time.Now().Add(time.Minute))
	ids, err := k.Threads()
	if err != nil || len(ids) != 2 {
		t.Fatalf("CPUs %v: %v", ids, err)
	}
	if err := k.Thread(ids[0]); err != nil {
		t.Error(err)
	}
	// Let it come to rest: the CPU that waits for work is in the kernel.
	var r remote.Registers
	for range 20 {
		if r, err = k.Registers(); err != nil {
			t.Fatal(err)
		}
		if inKernel(r.RIP) {
			break
		}
		time.AfterFunc(300*time.Millisecond, func() { k.Interrupt() })
		if s, err := k.Continue(); err != nil || s.Signal != 2 {
			t.Fatalf("interrupted: %+v: %v", s, err)
		}
		if err := k.Thread(ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	if !inKernel(r.RIP) {
		t.Fatalf("rip %#x", r.RIP)
	}
	text := make([]byte, 64)
	if err := k.ReadVirt(text, r.RIP&^63); err != nil || string(text) == string(make([]byte, 64)) {
		t.Errorf("text % x: %v", text, err)
	}
	if err := k.ReadVirt(text, 0xdead000000000000); err == nil {
		t.Error("a non-canonical address can be read")
	}
	// The idle loop comes by the place where it was stopped again.
	if err := k.Break(remote.Hardware, r.RIP, 1); err != nil {
		t.Fatal(err)
	}
	s, err := k.Continue()
	if err != nil || s.Signal != 5 {
		t.Errorf("%+v: %v", s, err)
	}
	if err := k.Thread(max(s.Thread, 1)); err != nil {
		t.Error(err)
	}
	if at, err := k.Registers(); err != nil || at.RIP != r.RIP {
		t.Errorf("stopped at %#x, want %#x: %v", at.RIP, r.RIP, err)
	}
	if err := k.Unbreak(remote.Hardware, r.RIP, 1); err != nil {
		t.Error(err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// inKernel: the upper half of the address space.
func inKernel(addr uint64) bool { return addr>>47 == 1<<17-1 }
