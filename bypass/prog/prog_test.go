package prog_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/prog"
	"github.com/fathom-trace/fathom/bypass/prog/bpfelf"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/netstate/live"
)

func TestMain(m *testing.M) { ktest.Main(m, ktest.Config{}) }

// object writes a program of one answer.
func object(t *testing.T, section, name string, answer int32) string {
	t.Helper()
	b, err := bpfelf.Write(section, name, asm.Instructions{asm.Mov.Imm(asm.R0, answer), asm.Return()})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name+".o")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func load(t *testing.T, file string, hook prog.Hook) *prog.Object {
	t.Helper()
	o, err := prog.Load(file, "", hook, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

func TestChoose(t *testing.T) {
	file := object(t, "xdp", "main", 2)
	for _, tt := range []struct {
		name string
		hook prog.Hook
		want string
	}{{"other", prog.XDP, "no program other for xdp; it has main (XDP)"}, {"", prog.Egress, "no program for egress"}} {
		if _, err := prog.Load(file, tt.name, tt.hook, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.name, err)
		}
	}
	if _, err := prog.Load(file+"x", "", prog.XDP, 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// device makes a pair and gives one end.
func device(t *testing.T) (xsk.Device, func() []held.Program) {
	t.Helper()
	ktest.Need(t, ktest.NetNS, ktest.XDP)
	p, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	ns := fmt.Sprintf("/proc/self/fd/%d", p.A.FD())
	return xsk.Device{Name: "va", NetNS: ns}, func() (out []held.Program) {
		r, err := live.OpenNS(p.A.NS)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, l := range r.Read(live.Links).Links {
			for _, x := range l.XDP {
				h := held.Program{Ifindex: l.Index, Mode: x.Mode, ID: x.ID}
				held.Describe(&h)
				out = append(out, h)
			}
		}
		return out
	}
}

// TestAttach: in each mode a program is there as long as its link, and a second one is refused by name.
func TestAttach(t *testing.T) {
	dev, on := device(t)
	o := load(t, object(t, "xdp", "first", 2), prog.XDP)
	for _, m := range []prog.Mode{prog.Native, prog.Generic, prog.Auto} {
		l, got, err := prog.Attach(dev, o, prog.XDP, m)
		if err != nil {
			t.Fatal(m, err)
		}
		if m != prog.Auto && got != m {
			t.Errorf("%v: it runs in %v", m, got)
		}
		ps := on()
		if len(ps) != 1 || ps[0].Name != "first" || ps[0].Mode != got.String() || len(ps[0].Owners) != 1 || ps[0].Pin != "" {
			t.Errorf("%v: %+v", m, ps)
		}
		var h *held.Error
		if _, _, err := prog.Attach(dev, load(t, object(t, "xdp", "second", 2), prog.XDP), prog.XDP, prog.Auto); !errors.As(err, &h) || !strings.Contains(err.Error(), `"first"`) {
			t.Errorf("a second one: %v", err)
		}
		if err := prog.DetachID(dev, ps[0].ID); !errors.As(err, &h) {
			t.Errorf("a link's program is detached: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if ps := on(); len(ps) != 0 {
			t.Errorf("after closing: %+v", ps)
		}
	}
	if _, _, err := prog.Attach(dev, o, prog.XDP, prog.Offload); err == nil {
		t.Error("veth runs programs itself")
	}
}

func TestTCX(t *testing.T) {
	dev, _ := device(t)
	for _, h := range []prog.Hook{prog.Ingress, prog.Egress} {
		l, _, err := prog.Attach(dev, load(t, object(t, "tc", "cls", -1), h), h, prog.Auto)
		if errors.Is(err, feature.ErrUnsupported) {
			ktest.Unsupported(t, err, "debian-6.1")
		} else if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPin: a pinned program outlives its link's descriptor, is replaced, detached, and forgotten when its device is gone.
func TestPin(t *testing.T) {
	dev, on := device(t)
	root := prog.Root{Leases: lease.Dir{Path: t.TempDir()}}
	pin := func(d xsk.Device, name string) string {
		t.Helper()
		l, _, err := prog.Attach(d, load(t, object(t, "xdp", name, 2), prog.XDP), prog.XDP, prog.Auto)
		if err != nil {
			t.Fatal(err)
		}
		path, err := root.Pin(d, prog.XDP, l)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := pin(dev, "first")
	if ps := on(); len(ps) != 1 || ps[0].Name != "first" || ps[0].Pin != path || len(ps[0].Owners) != 0 {
		t.Errorf("pinned as %s: %+v", path, ps)
	}
	if err := root.Sweep(); err != nil {
		t.Error(err)
	}
	if err := root.Replace(dev, prog.XDP, load(t, object(t, "xdp", "next", 1), prog.XDP)); err != nil {
		t.Fatal(err)
	}
	if ps := on(); len(ps) != 1 || ps[0].Name != "next" || ps[0].Pin != path {
		t.Errorf("replaced: %+v", ps)
	}
	if err := root.Detach(dev, prog.XDP); err != nil {
		t.Fatal(err)
	}
	if ps := on(); len(ps) != 0 {
		t.Errorf("detached: %+v", ps)
	}
	if err := root.Detach(dev, prog.XDP); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := root.Replace(dev, prog.XDP, load(t, object(t, "xdp", "late", 1), prog.XDP)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	p, err := topology.NewPair("va", "vb") // whose devices have the same names and numbers
	if err != nil {
		t.Fatal(err)
	}
	other := xsk.Device{Name: "va", NetNS: fmt.Sprintf("/proc/self/fd/%d", p.A.FD())}
	a, b := pin(dev, "here"), pin(other, "there")
	if a == b {
		t.Errorf("both are pinned as %s", a)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for { // the kernel takes a namespace apart in the background
		if err := root.Sweep(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(b); errors.Is(err, os.ErrNotExist) {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("the pin of a device that is gone stays")
		}
	}
	if _, err := os.Stat(a); err != nil {
		t.Error(err)
	}
	if err := root.Detach(dev, prog.XDP); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root.Leases.Path, "bpf")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the bpffs stays after its last pin:", err)
	}
}
