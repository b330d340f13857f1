package nic_test

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// TestJudgeDMA: what is copied is yellow, what fails is red, each with what to do; devices that map as they should have a row only if
// they are shown.
func TestJudgeDMA(t *testing.T) {
	errs := uint64(3)
	checks := nic.JudgeDMA([]nic.DMAUse{
		{Name: "0000:00:01.0", Driver: "ahci", Mask: ^uint64(0), Mapped: 5, Bytes: 100},
		{Name: "0000:00:02.0", Driver: "igb", Mask: ^uint64(0), Mapped: 5, Bytes: 100},
		{Name: "0000:00:03.0", Driver: "old", Mask: 1<<32 - 1, Mapped: 5, Bytes: 100, Bounced: 2, Copied: 50},
		{Name: "0000:00:04.0", Driver: "full", Mask: ^uint64(0), Mapped: 5, Bytes: 100, Bounced: 7, Copied: 90, Failed: 2},
		{Name: "0000:00:05.0", Driver: "guarded", Mask: ^uint64(0), Mapped: 5, Bytes: 100, Failed: 1},
	}, &netnic.Sample{Bounce: &netnic.Bounce{Slots: 512, Used: 510}, DMAErrors: &errs}, []*nic.Map{{Device: &netnic.Device{Name: "eth0", PCI: "0000:00:02.0"}}})
	want := []struct {
		dev   string
		light nic.Light
		text  []string
	}{
		{"eth0", nic.Green, nil}, {"0000:00:03.0", nic.Yellow, []string{"2 mappings of 0000:00:03.0 (old), 50 bytes", "up to 0xffffffff only"}},
		{"0000:00:04.0", nic.Red, []string{"2 of 7 mappings", "510 of its 512 slots", "boot with swiotlb=1024"}}, {"0000:00:05.0", nic.Red, []string{"1 of 6 mappings", "IOMMU"}},
		{"", nic.Yellow, []string{"3 times", "DMA-API"}},
	}
	if len(checks) != len(want) {
		t.Fatalf("%+v", checks)
	}
	for i, w := range want {
		c := checks[i]
		text := strings.Join(slices.Concat(c.Words, c.Turn), "\n")
		if c.Stage != "DMA" || c.Dev != w.dev || c.Light != w.light || len(w.text) == 0 && text != "" {
			t.Errorf("%+v, want %+v", c, w)
		}
		for _, x := range w.text {
			if !strings.Contains(text, x) {
				t.Errorf("%s: no %q in %q", w.dev, x, text)
			}
		}
	}
}

// TestDMA has an e1000e map a ring through the swiotlb, and then one that is larger than that.
func TestDMA(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint)
	m := cards(t)["e1000e"]
	if m == nil {
		t.Fatal("there is no e1000e")
	}
	if err := unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	r, err := netlive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, _, cpus := world(t)
	d, err := nic.OpenDMA(w, cpus)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	failures := len(d.Missing()) == 0
	if failures == (ktest.Where() == "debian-6.1") || !failures && !strings.Contains(d.Missing()[0].Why, "dma_map_page") {
		t.Errorf("mappings that fail are told: %v, %+v", failures, d.Missing())
	}
	// until waits for what the device does when its link is there.
	until := func(what string, ok func(u nic.DMAUse, c nic.Check) bool) {
		t.Helper()
		var c nic.Check
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			uses, err := d.Read()
			if err != nil {
				t.Fatal(err)
			}
			s := r.Receive()
			if s.Bounce == nil || s.Bounce.Slots == 0 || s.DMAErrors != nil {
				t.Fatalf("debugfs: %+v, %v", s.Bounce, s.DMAErrors)
			}
			checks := nic.JudgeDMA(uses, s, []*nic.Map{m})
			i := slices.IndexFunc(uses, func(u nic.DMAUse) bool { return u.Name == m.PCI && u.Driver == "e1000e" })
			j := slices.IndexFunc(checks, func(c nic.Check) bool { return c.Dev == m.Name })
			if i >= 0 && j >= 0 {
				if c = checks[j]; ok(uses[i], c) {
					t.Logf("%s: %+v %+v", what, uses[i], c)
					return
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: not seen in a minute: %+v", what, c)
			}
		}
	}
	link, err := netlink.LinkByName(m.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkSetDown(link), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	const ring = 250 // of 256 descriptors some are always free
	until("the ring", func(u nic.DMAUse, c nic.Check) bool {
		mapped := u.Mapped >= ring && u.Bytes >= ring*1500 || !failures
		return mapped && u.Bounced >= ring && u.Copied >= ring*1500 && u.Failed == 0 && c.Light == nic.Yellow && strings.Contains(c.Words[0], "swiotlb=force is set")
	})
	resize := func(n string) {
		t.Helper()
		if out, err := exec.Command(ktest.Oracle(t, "ethtool"), "-G", m.Name, "rx", n).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	resize("4096")
	defer resize("256")
	until("a ring that does not fit", func(u nic.DMAUse, c nic.Check) bool {
		full := u.Failed > 0 && c.Light == nic.Red && strings.Contains(strings.Join(c.Words, "\n"), "the swiotlb had no room")
		return full || !failures && u.Bounced >= 2*ring
	})
}
