package nic_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/probe"
)

// named gives options whose names are those of the moment.
func named(t *testing.T, cpus int) nic.SocketOptions {
	t.Helper()
	o := nic.SocketOptions{CPUs: cpus}
	var now *live.Live
	o.Renew = func() {
		var err error
		if now, err = live.Open(live.Options{}); err != nil {
			t.Error(err)
		}
	}
	o.Renew()
	o.Name = func(addr uint64) nic.Place {
		syms, err := now.Kallsyms()
		if err != nil {
			t.Error(err)
			return nic.Place{}
		}
		name, module, _, _ := syms.ByAddr(addr)
		return nic.Place{Name: name, Module: module}
	}
	return o
}

// held are the kernel's sockets by their ports.
func held(t *testing.T, w *probe.World, o nic.SocketOptions) map[uint16][]nic.KernelSocket {
	t.Helper()
	all, missing, err := nic.ListSockets(t.Context(), w, o)
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	out := map[uint16][]nic.KernelSocket{}
	for _, s := range all {
		if s.Local.IsValid() {
			out[s.Local.Port()] = append(out[s.Local.Port()], s)
		}
	}
	return out
}

// TestSockets: sockets of the kernel are told from those of processes, with how they were made; and as they are made, by whom.
func TestSockets(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint, ktest.Ringbuf, ktest.Iter, ktest.Kprobe, ktest.Modules)
	w, _, cpus := world(t)
	o := named(t, cpus)
	s, err := nic.OpenSockets(w, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.Missing()) > 0 {
		t.Error(s.Missing())
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan nic.SocketEvent, 1000), make(chan error, 1)
	go func() {
		_, err := s.Run(ctx, func(e nic.SocketEvent) error { seen <- e; return nil })
		done <- err
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	wait := func(what string, is func(nic.SocketEvent) bool) {
		t.Helper()
		for late := time.After(time.Minute); ; {
			select {
			case e := <-seen:
				t.Logf("%+v", e)
				if e.Comm != "" && e.By.Module == "" && e.What == "made" && !e.Kern {
					t.Errorf("a process's: %+v", e)
				}
				if is(e) {
					return
				}
			case <-late:
				t.Fatalf("not seen: %s", what)
			}
		}
	}
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // of a process's MPTCP socket the kernel has the parts
	mine, err := plain.Listen(t.Context(), "tcp4", "127.0.0.1:4566")
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	vxlan := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx"}, VxlanId: 7, Port: 4789, Learning: true}
	if err := netlink.LinkAdd(vxlan); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netlink.LinkDel(vxlan); err != nil {
			t.Error(err)
		}
	}()
	up(t, "vx")
	wait("vxlan's", func(e nic.SocketEvent) bool {
		return e.What == "made" && strings.HasPrefix(e.Proto, "udp") && e.Kern && e.By.Module == "vxlan"
	})
	for _, tt := range []struct {
		form string
		kern bool
	}{{"kern", true}, {"user", false}} {
		unload := load(t, ktcpModule, "port=4567 form="+tt.form)
		wait("made "+tt.form, func(e nic.SocketEvent) bool {
			return e.What == "made" && e.Proto == "tcp" && e.Kern == tt.kern && e.By.Module == "fathom_ktcp" && e.NetNS != 0 && e.Inode != 0
		})
		wait("listens "+tt.form, func(e nic.SocketEvent) bool {
			return e.What == "listens" && e.Local.String() == "0.0.0.0:4567" && e.Kern == tt.kern && e.HoldsNS != tt.kern && e.By.Module == "fathom_ktcp"
		})
		c, err := net.Dial("tcp4", "127.0.0.1:4567")
		if err != nil {
			t.Fatal(err)
		}
		wait("accepted", func(e nic.SocketEvent) bool {
			return e.What == "made" && e.Kern && strings.HasPrefix(e.By.Name, "ktcp_accept") && e.By.Module == "fathom_ktcp" && e.Comm == "fathom_ktcp"
		})
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // it has been accepted
			t.Fatal(err)
		}
		all := held(t, w, o)
		found := all[4567]
		listens := slices.IndexFunc(found, func(s nic.KernelSocket) bool { return s.State == "listen" && s.Kern == tt.kern && s.HoldsNS != tt.kern })
		talks := slices.IndexFunc(found, func(s nic.KernelSocket) bool {
			return s.State == "established" && s.Remote.String() == c.LocalAddr().String()
		})
		if len(found) != 2 || listens < 0 || talks < 0 {
			t.Errorf("%s: %+v", tt.form, found)
		}
		if s := all[4566]; len(s) > 0 {
			t.Errorf("a process's: %+v", s)
		}
		if v := all[4789]; len(v) == 0 || v[0].Receives != (nic.Place{Name: "vxlan_rcv", Module: "vxlan"}) || !v[0].Kern {
			t.Errorf("vxlan: %+v", v)
		}
		c.Close()
		unload()
	}
}
