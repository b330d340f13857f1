package progen

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// runs is how often each program is run: the second run finds what the first left.
const runs = 3

// world is a system of which only types are known.
type world struct{ types ctype.Lookup }

func (w world) Types() ctype.Lookup { return w.types }
func (world) Expand(p check.AttachPoint) ([]check.Target, error) {
	return []check.Target{{Provider: p.Provider.Name, Name: p.Raw}}, nil
}
func (world) Args(check.Target) (*types.Type, *types.Type, error) {
	return nil, nil, fmt.Errorf("no arguments")
}
func (world) Kfunc(check.Target, string) bool             { return false }
func (world) UserTypes(string) ctype.Lookup               { return nil }
func (world) Suggest(check.AttachPoint) []string          { return nil }
func (world) Kallsyms(string) (uint64, bool)              { return 0, false }
func (world) Usyms(string, string) (uint64, uint64, bool) { return 0, 0, false }

// compile fails the test on errors: programs are well typed.
func compile(t testing.TB, text string, w check.World, cpus int, cg script.Codegen) *script.Compiled {
	t.Helper()
	c, diags := script.CompileWith(&syntax.Source{Name: "progen", Text: text}, check.Options{World: w},
		build.Options{NumCPU: cpus, RingBytes: 1 << 20}, cg)
	for _, d := range diags {
		if d.Severity == syntax.Error {
			t.Fatalf("%s\n%v", text, d)
		}
	}
	return c
}

// outcome is what a program leaves: what it returned, the records it sent, its maps.
type outcome struct {
	lines []string
}

func (o *outcome) add(format string, args ...any) {
	o.lines = append(o.lines, fmt.Sprintf(format, args...))
}

func (o *outcome) record(c *script.Compiled, b []byte) {
	if len(b) < 8 || binary.LittleEndian.Uint64(b) >= uint64(len(c.Prog.Events)) {
		o.add("record %x", b)
		return
	}
	e := c.Prog.Events[binary.LittleEndian.Uint64(b)]
	if e.Payload != nil {
		textEnds(e.Payload, b[8:])
	}
	o.add("event %q %x", e.Fmt, b[8:])
}

// textEnds clears what is behind the ends of strings: nobody prints it.
func textEnds(t *types.Type, b []byte) {
	for _, f := range t.Fields {
		v := b[f.Off : f.Off+f.Type.Size]
		if f.Type.Kind == types.String {
			if i := slices.Index(v, 0); i >= 0 {
				clear(v[i:])
			}
		}
		textEnds(f.Type, v)
	}
}

// mapLine notes a map's entries; internal maps but the counters are no result.
func (o *outcome) entries(m *ir.Map, all map[string]string) {
	if strings.HasPrefix(m.Name, ".") && m.Name != ".counters" {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		o.add("%s[%s] = %s", m.Name, k, all[k])
	}
}

func inMachine(t testing.TB, c *script.Compiled, target vm.Target, env *vm.Env, cpus int) *outcome {
	t.Helper()
	cfg := vm.Config{Programs: map[string]asm.Instructions{}, Maps: map[string]*ebpf.MapSpec{}, CPUs: cpus, Target: target, Env: env}
	for _, p := range c.Obj.Programs {
		cfg.Programs[p.Name] = p.Insns
	}
	for _, m := range c.Obj.Maps {
		cfg.Maps[m.Spec.Name] = m.Spec
	}
	m, err := vm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := &outcome{}
	for range runs {
		for _, p := range c.Obj.Programs {
			r0, err := m.Run(p.Name, nil)
			if err != nil {
				t.Fatalf("%v\n%v", err, p.Insns)
			}
			o.add("returned %d", uint32(r0))
		}
		for _, r := range m.Map("ring").Drain() {
			o.record(c, r.Data)
		}
	}
	for _, m2 := range c.Obj.Maps {
		all := map[string]string{}
		if m2.IR.Kind == ir.Ring {
			continue
		}
		for k, v := range m.Map(m2.Spec.Name).All() {
			all[fmt.Sprintf("%x", k)] = fmt.Sprintf("%x", v)
		}
		o.entries(m2.IR, all)
	}
	return o
}
