package script

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// TestOlderKernel: what a kernel has no helper for is done without, or an error at its place; on one that has all nothing changes.
func TestOlderKernel(t *testing.T) {
	none := func(int32) bool { return true }
	calls := func(c *Compiled) (fns []asm.BuiltinFunc) {
		for _, p := range c.Obj.Programs {
			for _, in := range p.Insns {
				if in.IsBuiltinCall() {
					fns = append(fns, asm.BuiltinFunc(in.Constant))
				}
			}
		}
		return fns
	}
	for _, tt := range []struct {
		text    string
		without asm.BuiltinFunc // is called where there is all
		err     string
	}{
		{"kprobe:vfs_read { @[func] = count(); }", asm.FnGetFuncIp, ""},
		{"tracepoint:syscalls:sys_enter_read { @[kstack] = count(); }", asm.FnGetCurrentTaskBtf, ""},
		{"BEGIN { for ($i : 0..9) { @ = count(); } }", asm.FnLoop, "has no bpf_loop"},
		{"BEGIN { $i = 0; while ($i < 9) { $i++; } }", asm.FnLoop, "has no bpf_loop"},
		{"BEGIN { unroll(9) { @ = count(); } }", 0, ""},
	} {
		for _, lacks := range []func(int32) bool{nil, none} {
			c, ds := Compile(&syntax.Source{Name: "stdin", Text: tt.text}, check.Options{}, build.Options{NumCPU: 2, Lacks: lacks})
			var said []string
			for _, d := range ds {
				said = append(said, d.Error())
			}
			text := strings.Join(said, "\n")
			switch {
			case lacks != nil && tt.err != "":
				if !strings.Contains(text, tt.err) || !failed(ds) {
					t.Errorf("%s: %q", tt.text, text)
				}
			case failed(ds):
				t.Errorf("%s: %s", tt.text, text)
			case tt.without != 0:
				has := false
				for _, fn := range calls(c) {
					has = has || fn == tt.without
				}
				if has == (lacks != nil) {
					t.Errorf("%s: calls %v is %v", tt.text, tt.without, has)
				}
			}
		}
	}
}
