package probe

import (
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/fathom-trace/fathom/lang/check"
)

// half is a program as bpf/gen makes it.
func half(name string) asm.Instructions {
	f := &btf.Func{Name: name, Type: &btf.FuncProto{Return: &btf.Int{Size: 4}}, Linkage: btf.GlobalFunc}
	return asm.Instructions{btf.WithFuncMetadata(asm.Mov.Imm(asm.R0, 0).WithSymbol(name), f), asm.Return()}
}

func TestEither(t *testing.T) {
	in, out := half("in"), half("out")
	insns, err := either(42, in, out)
	if err != nil {
		t.Fatal(err)
	}
	called := map[string]bool{}
	for i := range insns {
		if insns[i].IsFunctionCall() {
			called[insns[i].Reference()] = true
		}
		if f := btf.FuncMetadata(&insns[i]); f != nil && (f.Linkage == btf.GlobalFunc) != (i == 0) {
			t.Errorf("%s has linkage %v", f.Name, f.Linkage)
		}
	}
	if !called["in"] || !called["out"] || insns[1].Constant != 42 || insns[1].Src != asm.PseudoKfuncCall {
		t.Errorf("%v\n%v", called, insns)
	}
	if _, err := either(42, half("x"), half("x")); err == nil {
		t.Error("two programs of one name were joined")
	}
	if _, err := either(42, half("x"), asm.Instructions{asm.Return()}); err == nil {
		t.Error("a program without types was joined")
	}
}

func TestSessionable(t *testing.T) {
	tests := []struct {
		ts   []check.Target
		want bool
	}{
		{nil, false},
		{[]check.Target{{Func: "a"}, {Func: "b", Module: "vmlinux"}}, true},
		{[]check.Target{{Func: "a"}, {Func: "b", Offset: 4}}, false},
		{[]check.Target{{Offset: 0xffffffff81000000}}, false},
		{[]check.Target{{Func: "a", Module: "veth"}}, false},
	}
	for _, tt := range tests {
		if got := sessionable(tt.ts); got != tt.want {
			t.Errorf("%+v: %v", tt.ts, got)
		}
	}
}
