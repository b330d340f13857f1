package callgraph

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/answers/graph"
	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/kernel"
)

// TestUnsupported: without any engine the error has four lines and says what was tried.
func TestUnsupported(t *testing.T) {
	var b strings.Builder
	code := diag.Report(&b, unsupported("vfs_read", []error{
		unsupportedGraph("available_tracers=function nop", nil), unsupportedProbes("stat /sys/x", syscall.ENOENT),
	}), "sudo fathom trace graph vfs_read")
	want := `fathom: trace the calls below vfs_read
because: function_graph in an instance not supported: available_tracers=function nop; probes on entry and return not supported: stat /sys/x: no such file or directory (errno 2)
try: fathom doctor
try: fathom lab boot -- fathom trace graph vfs_read -- CMD
more: fathom help E-KERNEL
`
	if d := cmp.Diff(want, b.String()); d != "" || code != diag.ExitUnsupported {
		t.Errorf("%d %s", code, d)
	}
	b.Reset()
	if code := diag.Report(&b, unsupported("f", []error{unsupportedProbes("load", syscall.EPERM)}), ""); code != diag.ExitPermission {
		t.Errorf("%d %s", code, &b)
	}
}

// code is memory that holds functions.
type code map[uint64][]byte

// ReadVirt implements kernel.Memory.
func (c code) ReadVirt(p []byte, addr uint64) error {
	b, ok := c[addr]
	if !ok || len(b) < len(p) {
		return &kernel.FaultError{Addr: addr}
	}
	copy(p, b)
	return nil
}

// to is a call or jump of 5 bytes at addr.
func to(op byte, addr, target uint64) []byte {
	rel := uint32(target - addr - 5)
	return []byte{op, byte(rel), byte(rel >> 8), byte(rel >> 16), byte(rel >> 24)}
}

const (
	call = 0xe8
	jump = 0xe9
)

// TestBelow follows calls, jumps to other functions, a cold part, and a static call; not itself, nor what is dull.
func TestBelow(t *testing.T) {
	const text = `ffffffff81000000 T root
ffffffff81000020 T near
ffffffff81000040 T tail
ffffffff81000060 T far
ffffffff81000080 t root.cold
ffffffff810000a0 T __SCT__hook
ffffffff810000c0 T hooked
ffffffff810000e0 T panic
ffffffff81000100 T dark
ffffffff81000120 T end
`
	syms, err := kallsyms.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	const root = 0xffffffff81000000
	pad := func(parts ...[]byte) []byte {
		b := []byte{}
		for _, p := range parts {
			b = append(b, p...)
		}
		for len(b) < 0x20 {
			b = append(b, 0x90)
		}
		return b
	}
	mem := code{
		root:        pad(to(call, root, root+0x20), to(jump, root+5, root+0x40), to(jump, root+10, root+0x80), to(call, root+15, root+0xa0), to(call, root+20, root+0xe0), to(jump, root+25, root+2)),
		root + 0x20: pad(to(call, root+0x20, root+0x60)),
		root + 0x40: pad(to(call, root+0x40, root)),
		root + 0x60: pad(),
		root + 0x80: pad(to(call, root+0x80, root+0x100)),
		root + 0xa0: pad(to(jump, root+0xa0, root+0xc0)),
		root + 0xc0: pad(),
		root + 0xe0: pad(to(call, root+0xe0, root+0x60)),
	}
	tests := []struct {
		depth, limit int
		want         string
		cut          int
	}{
		{0, 10, "near 1, tail 1, dark 1, hooked 1, far 2", 0},
		{1, 10, "near 1, tail 1, dark 1, hooked 1", 0},
		{0, 2, "near 1, tail 1", 2},
	}
	for _, tt := range tests {
		w := newWalker(mem, syms)
		w.arch = disasm.AMD64
		found, cut := w.below([]uint64{root}, tt.depth, tt.limit, func(s kallsyms.Sym) bool { return dull(s.Name) })
		var got []string
		for _, f := range found {
			got = append(got, f.Name+" "+string(rune('0'+f.far)))
		}
		if d := cmp.Diff(tt.want, strings.Join(got, ", ")); d != "" || cut != tt.cut {
			t.Errorf("depth %d, limit %d: %d more %s", tt.depth, tt.limit, cut, d)
		}
	}
}

func TestContext(t *testing.T) {
	for _, tt := range []struct {
		bits  countBits
		count uint64
		want  graph.Context
	}{
		{plainBits, 0, graph.Task}, {plainBits, 0x200, graph.Task}, {plainBits, 0x100, graph.Softirq}, {plainBits, 0x10101, graph.Hardirq},
		{plainBits, 0x110000, graph.NMI}, {plainBits, 0x80000000, graph.Task},
		{disableBits, 0x10000, graph.Task}, {disableBits, 0x10102, graph.Softirq}, {disableBits, 0x1000002, graph.Hardirq},
		{disableBits, 0x11010000, graph.NMI}, {disableBits, 0x80000000, graph.Task},
	} {
		if got := tt.bits.context(tt.count); got != tt.want {
			t.Errorf("%#x of %#x: %v, want %v", tt.count, tt.bits.hardirq, got, tt.want)
		}
	}
}
