package nic

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

const modern = `           CPU0       CPU1       
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
 38:          0      36030 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
 40:          7          0 IR-PCI-MSIX-0000:03:00.1    2-edge      eth0-TxRx-1, shared thing
NMI:          0          2   Non-maskable interrupts
ERR:          0
`

const old = `            CPU0       CPU2       
  25:        419          3   PCI-MSI 1572865-edge      virtio1-input.0
`

func TestInterrupts(t *testing.T) {
	got := ParseInterrupts(modern)
	want := Interrupts{CPUs: []int{0, 1}, Rows: []InterruptRow{
		{"24", 24, []uint64{1, 0}, "IO-APIC", "5-edge", []string{"ACPI:Ged"}},
		{"38", 38, []uint64{0, 36030}, "PCI-MSIX-0000:00:03.0", "1-edge", []string{"virtio2-input.0"}},
		{"40", 40, []uint64{7, 0}, "IR-PCI-MSIX-0000:03:00.1", "2-edge", []string{"eth0-TxRx-1", "shared thing"}},
		{"NMI", -1, []uint64{0, 2}, "", "", []string{"Non-maskable interrupts"}},
		{"ERR", -1, []uint64{0}, "", "", []string{""}},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if i, pci, ok := got.Rows[2].Message(); i != 2 || pci != "0000:03:00.1" || !ok {
		t.Error(i, pci, ok)
	}
	if _, _, ok := got.Rows[0].Message(); ok {
		t.Error("a line of IO-APIC has a message")
	}
	got = ParseInterrupts(old)
	if d := cmp.Diff([]int{0, 2}, got.CPUs); d != "" {
		t.Error(d)
	}
	// 1572865 is 1 | 0x300 << 11: bus 3, device 0.
	if i, pci, ok := got.Rows[0].Message(); i != 1 || pci != "0000:03:00.0" || !ok {
		t.Error(i, pci, ok)
	}
}

func TestQueueOfName(t *testing.T) {
	for _, tt := range []struct {
		name   string
		q      int
		rx, tx bool
	}{
		{"virtio2-input.0", 0, true, false}, {"virtio2-output.13", 13, false, true}, {"virtio2-config", -1, false, false},
		{"eth0-rx-0", 0, true, false}, {"eth0-tx-1", 1, false, true}, {"eth0", -1, false, false}, {"ens5-Tx-Rx-3", 3, true, true},
		{"enp3s0f1-TxRx-7", 7, true, true}, {"mlx5_comp3@pci:0000:01:00.0", 3, true, true}, {"mlx5_async0@pci:0000:01:00.0", -1, false, false},
		{"eth0-rxtx-2", 2, true, true}, {"i40e-eth0-TxRx-4", 4, true, true}, {"7", -1, false, false}, {"", -1, false, false},
	} {
		if q, rx, tx := QueueOfName(tt.name); q != tt.q || rx != tt.rx || tx != tt.tx {
			t.Errorf("%q: %d %v %v", tt.name, q, rx, tx)
		}
	}
}

func TestCPUList(t *testing.T) {
	for _, tt := range []struct{ mask, list string }{
		{"0", ""}, {"3", "0-1"}, {"00000000,00000005", "0,2"}, {"1,80000000", "31-32"}, {"ffffffff,ffffffff", "0-63"},
	} {
		got, err := CPUList(tt.mask)
		if err != nil || got != tt.list {
			t.Errorf("%s: %q %v", tt.mask, got, err)
		}
	}
	if _, err := CPUList("xyz"); err == nil {
		t.Error("xyz is a mask")
	}
	if d := cmp.Diff([]int{0, 1, 2, 5}, CPUs("0-2,5")); d != "" {
		t.Error(d)
	}
}

func TestSoftnet(t *testing.T) {
	got := ParseSoftnet("0000000a 00000001 00000002 00000000 00000000 00000000 00000000 00000000 00000000 00000003 00000004 00000005 00000007 00000002 00000003\n")
	want := []Softnet{{CPU: 7, Processed: 10, Dropped: 1, Squeezed: 2, RPS: 3, FlowLimit: 4, Backlog: 5, InputLen: 2, ProcessLen: 3, HasIndex: true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	irqs := ParseSoftirqs("      CPU0  CPU1\n  HI:   1  0\n NET_RX: 5 6\n")
	if d := cmp.Diff(map[string][]uint64{"HI": {1, 0}, "NET_RX": {5, 6}}, irqs); d != "" {
		t.Error(d)
	}
}

// bits writes a bitset of the form that lists bits, as the kernel sends it without ETHTOOL_FLAG_COMPACT_BITSETS.
func bits(noMask bool, set ...uint32) []byte {
	var list []byte
	for _, i := range set {
		b := nlattr.AppendU32(nil, 1, i)
		if !noMask {
			b = nlattr.Append(b, 3, nil)
		}
		list = nlattr.Append(list, 1, b)
	}
	var out []byte
	if noMask {
		out = nlattr.Append(out, 1, nil)
	}
	return nlattr.Append(out, 3, list)
}

func TestFeatures(t *testing.T) {
	b := genl(0)
	b = nlattr.Append(b, 2, bits(false, 0, 2))
	b = nlattr.Append(b, 4, bits(true, 0, 1))
	b = nlattr.Append(b, 5, nlattr.Append(nil, 4, []byte{4, 0, 0, 0})) // compact: bit 2
	got, err := DecodeFeatures(b, map[uint32]string{0: "a", 1: "b", 2: "c"})
	want := []Feature{{"a", true, false}, {"b", true, true}, {"c", false, true}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestDecode(t *testing.T) {
	q, err := DecodeQueue(nlattr.AppendU32(nlattr.AppendU32(nlattr.AppendU32(genl(10), 1, 3), 3, 1), 4, 259))
	if d := cmp.Diff(Queue{Dir: TX, Index: 3, NAPI: 259, Net: true}, q); d != "" || err != nil {
		t.Error(d, err)
	}
	one := uint32(2)
	ns := uint64(20000)
	n, err := DecodeNAPI(nlattr.AppendU32(nlattr.AppendU32(nlattr.AppendU32(nlattr.AppendU32(genl(11), 2, 259), 3, 38), 5, 2), 6, 20000))
	if d := cmp.Diff(NAPI{ID: 259, IRQ: 38, DeferIRQs: &one, GROTimeout: &ns}, n); d != "" || err != nil {
		t.Error(d, err)
	}
	co, err := DecodeCoalesce(nlattr.Append(nlattr.AppendU32(genl(20), 2, 50), 11, []byte{1}))
	if d := cmp.Diff([]Setting{{"rx-usecs", 50}, {"adaptive-rx", 1}}, co); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestRegisters(t *testing.T) {
	dump := make([]byte, 32*4)
	put := func(word int, v uint32) { binary.LittleEndian.PutUint32(dump[4*word:], v) }
	put(0, 1<<6|2<<8|1)
	put(1, 1<<19|2<<6|3)
	put(5, 255)
	put(20, 7)
	got := DecodeRegisters("e1000e", dump)
	if d := cmp.Diff([]Register{
		{0, "CTRL", 0x241, []string{"full duplex", "set link up", "speed 1000 Mb/s"}},
		{1, "STATUS", 0x80083, []string{"full duplex", "link up", "function 0", "speed 1000 Mb/s", "bus mastering on"}},
	}, got[:2]); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Register{{5, "RDT(0)", 255, nil}, {20, "word 20", 7, nil}}, []Register{got[5], got[len(got)-1]}); d != "" {
		t.Error(d)
	}
	// Places that the driver's source gives.
	at := map[string]int{}
	for _, r := range DecodeRegisters("igb", make([]byte, 739*4)) {
		at[r.Name] = r.Word
	}
	for name, want := range map[string]int{
		"FCAL": 26, "RCTL": 32, "TCTL": 38, "WUC": 42, "PCS_CFG0": 47, "crcerrs": 54, "gorc": 84, "rnbc": 88, "ptc64": 102, "lenerrs": 118, "SRRCTL(0)": 121,
		"RDH(3)": 144, "EITR(0)": 153, "RAL(0)": 179, "RAH(15)": 210, "TDBAL(0)": 211, "DCA_TXCTRL(3)": 246,
	} {
		if at[name] != want {
			t.Errorf("%s is word %d, not %d", name, want, at[name])
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add(modern)
	f.Add(old)
	f.Add("0000000a 00000001 00000002\n")
	f.Fuzz(func(t *testing.T, s string) {
		i := ParseInterrupts(s)
		for _, r := range i.Rows {
			r.Message()
			for _, n := range r.Names {
				QueueOfName(n)
			}
			if len(r.Counts) > len(i.CPUs) {
				t.Error("more counts than CPUs")
			}
		}
		ParseSoftnet(s)
		ParseSoftirqs(s)
		CPUList(s)
		CPUs(s)
	})
}

func FuzzMessages(f *testing.F) {
	f.Add(nlattr.Append(genl(0), 4, bits(true, 0, 1)))
	f.Add(nlattr.AppendU32(genl(10), 1, 3))
	f.Fuzz(func(_ *testing.T, b []byte) {
		Family(b)
		DecodeQueue(b)
		DecodeNAPI(b)
		DecodeChannels(b)
		DecodeRings(b)
		DecodeCoalesce(b)
		names, _ := DecodeStrings(b)
		DecodeFeatures(b, names)
		DecodeRegisters("igb", b)
		DecodeRegisters("none", b)
		DecodeFeatures(b, map[uint32]string{0: "a", 9: "b"})
	})
}
