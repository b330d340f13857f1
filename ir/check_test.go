package ir

import (
	"strings"
	"testing"
)

// unit makes a unit of one function from its blocks; jumps are filled in by fn.
func unit(fn func(f *Func)) *Unit {
	u := &Unit{}
	u.Entry = &Func{Name: "f", Unit: u, Entry: true}
	fn(u.Entry)
	return u
}

func TestCheck(t *testing.T) {
	ret := Ins{Op: Ret}
	tests := []struct {
		name, want string
		u          *Unit
	}{
		{"fine", "", unit(func(f *Func) {
			r := f.NewReg()
			f.NewBlock().Ins = []Ins{{Op: Const, Dst: r, A: Imm(1)}, {Op: Ret, A: R(r)}}
		})},
		{"no end", "no terminator", unit(func(f *Func) { f.NewBlock().Ins = []Ins{{Op: Nop}} })},
		{"two ends", "terminator inside a block", unit(func(f *Func) { f.NewBlock().Ins = []Ins{ret, ret} })},
		{"unknown register", "no register v9", unit(func(f *Func) { f.NewBlock().Ins = []Ins{{Op: Ret, A: R(9)}} })},
		{"not assigned", "v1 is not assigned on every way here", unit(func(f *Func) {
			r, c := f.NewReg(), f.NewReg()
			a, b, d := f.NewBlock(), f.NewBlock(), f.NewBlock()
			a.Ins = []Ins{{Op: Const, Dst: c}, {Op: Branch, A: R(c), Then: b, Else: d}}
			b.Ins = []Ins{{Op: Const, Dst: r}, {Op: Jump, Then: d}}
			d.Ins = []Ins{{Op: Ret, A: R(r)}}
		})},
		{"elsewhere", "jump out of the function", unit(func(f *Func) {
			f.NewBlock().Ins = []Ins{{Op: Jump, Then: &Block{}}}
		})},
		{"beyond a slot", "beyond the 8 bytes of s", unit(func(f *Func) {
			f.NewBlock().Ins = []Ins{{Op: Store, Size: 8, Slot: f.Unit.NewSlot("s", 8), Off: 4}, ret}
		})},
		{"no place", "no place", unit(func(f *Func) { f.NewBlock().Ins = []Ins{{Op: Store, Size: 8}, ret} })},
		{"width", "width 3", unit(func(f *Func) {
			f.NewBlock().Ins = []Ins{{Op: Store, Size: 3, Slot: f.Unit.NewSlot("s", 8)}, ret}
		})},
		{"constant on the left", "a constant on the left", unit(func(f *Func) {
			b := f.NewBlock()
			b.Ins = []Ins{{Op: Branch, Then: b, Else: b}}
		})},
		{"another's callback", "callback of another unit", unit(func(f *Func) {
			f.NewBlock().Ins = []Ins{{Op: FuncPtr, Dst: f.NewReg(), Callee: &Func{Name: "g"}}, ret}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.u.Check()
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

// TestEvalDivision has the results of kernel/bpf/core.c for what C leaves undefined.
func TestEvalDivision(t *testing.T) {
	const least = -1 << 63
	for _, tt := range []struct {
		op      Alu
		a, b, r int64
	}{
		{Div, 7, 0, 0}, {Mod, 7, 0, 7}, {SDiv, 7, 0, 0}, {SMod, -7, 0, -7},
		{SDiv, least, -1, least}, {SMod, least, -1, 0}, {Div, -1, 2, 1<<63 - 1}, {SDiv, -7, 2, -3}, {SMod, -7, 2, -1},
		{Shl, 1, 64, 1}, {Shr, -1, 63, 1}, {Sar, -8, 65, -4},
	} {
		if got := tt.op.Eval(tt.a, tt.b); got != tt.r {
			t.Errorf("%d op %d %d = %d, want %d", tt.a, tt.op, tt.b, got, tt.r)
		}
	}
}
