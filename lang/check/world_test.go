package check_test

import (
	"fmt"
	"sort"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cpp"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// fakeWorld is a small kernel in memory.
type fakeWorld struct {
	types  *fakeTypes
	events map[string]*types.Type // category:event → args
}

// fakeTypes are C types by name; structs and unions under their tag.
type fakeTypes struct {
	named map[string]ctype.Type
	funcs map[string]*ctype.Func
}

func (f *fakeTypes) ByName(k ctype.Kind, name string) (ctype.Type, error) {
	prefixes := map[ctype.Kind][]string{
		ctype.KindStruct: {"struct "}, ctype.KindUnion: {"union "}, ctype.KindEnum: {"enum "}, ctype.KindTypedef: {"typedef "},
		ctype.KindBase: {""}, ctype.Any: {"struct ", "union ", "enum ", "typedef ", ""},
	}
	for _, p := range prefixes[k] {
		if t, ok := f.named[p+name]; ok {
			return t, nil
		}
	}
	return nil, ctype.ErrNotFound
}

func (f *fakeTypes) EnumValue(name string) (*ctype.Enum, int64, bool) {
	for _, t := range f.named {
		if e, ok := t.(*ctype.Enum); ok {
			for _, v := range e.Values {
				if v.Name == name {
					return e, v.Value, true
				}
			}
		}
	}
	return nil, 0, false
}

func (f *fakeTypes) Func(_, name string) (*ctype.Func, error) {
	if fn, ok := f.funcs[name]; ok {
		return fn, nil
	}
	return nil, ctype.ErrNotFound
}

// C types.
var (
	charT  = &ctype.Int{Name: "char", Size: 1, Signed: true, Char: true}
	u8T    = &ctype.Int{Name: "unsigned char", Size: 1}
	u16T   = &ctype.Int{Name: "unsigned short", Size: 2}
	intT   = &ctype.Int{Name: "int", Size: 4, Signed: true}
	uintT  = &ctype.Int{Name: "unsigned int", Size: 4}
	longT  = &ctype.Int{Name: "long", Size: 8, Signed: true}
	ulongT = &ctype.Int{Name: "unsigned long", Size: 8}
)

func ptr(t ctype.Type, tags ...string) ctype.Type { return &ctype.Ptr{Elem: t, Tags: tags} }

func strukt(name string, size int, members ...ctype.Member) *ctype.Struct {
	return ctype.NewStruct(name, false, size, func() []ctype.Member { return members })
}

func member(name string, t ctype.Type, off int) ctype.Member {
	return ctype.Member{Name: name, Type: t, BitOff: 8 * off}
}

func newWorld() *fakeWorld {
	enum := &ctype.Enum{Name: "skb_drop_reason", Size: 4, Values: []ctype.EnumValue{{Name: "SKB_NOT_DROPPED_YET"}, {Name: "SKB_CONSUMED", Value: 1}}}
	inner := strukt("", 8, member("a", intT, 0), member("b", intT, 4))
	var task *ctype.Struct
	task = ctype.NewStruct("task_struct", false, 64, func() []ctype.Member {
		return []ctype.Member{
			member("pid", intT, 0), member("comm", &ctype.Array{Elem: charT, Len: 16}, 8), member("parent", ptr(task), 24),
			member("", inner, 32), member("set_child_tid", ptr(intT, "user"), 40),
		}
	})
	dev := strukt("net_device", 64, member("name", &ctype.Array{Elem: charT, Len: 16}, 0), member("ifindex", intT, 16))
	skb := strukt("sk_buff", 64, member("dev", ptr(dev), 0), member("len", uintT, 8),
		ctype.Member{Name: "pkt_type", Type: u8T, BitOff: 96, BitSize: 3}, member("data", ptr(u8T), 16),
		member("addr", &ctype.Array{Elem: u8T, Len: 4}, 24), member("reason", enum, 28))
	regs := strukt("pt_regs", 168, member("r10", ulongT, 0), member("dx", ulongT, 8), member("si", ulongT, 16), member("di", ulongT, 24))
	sock := strukt("sock", 8, member("family", u16T, 0))
	u64 := &ctype.Typedef{Name: "uint64_t", Type: ulongT}
	types_ := &fakeTypes{named: map[string]ctype.Type{
		"struct task_struct": task, "struct net_device": dev, "struct sk_buff": skb, "struct pt_regs": regs, "struct sock": sock,
		"enum skb_drop_reason": enum, "typedef uint64_t": u64, "int": intT, "char": charT, "unsigned long": ulongT, "long": longT,
	}, funcs: map[string]*ctype.Func{
		"vfs_read": {Name: "vfs_read", Params: []ctype.Param{{Name: "file", Type: ptr(ctype.Void{})}, {Name: "buf", Type: ptr(charT, "user")},
			{Name: "count", Type: ulongT}, {Name: "pos", Type: ptr(longT)}}, Result: longT},
		"kfree_skb":      {Name: "kfree_skb", Params: []ctype.Param{{Name: "skb", Type: ptr(skb)}}, Result: ctype.Void{}},
		"__x64_sys_read": {Name: "__x64_sys_read", Params: []ctype.Param{{Name: "regs", Type: ptr(regs)}}, Result: longT},
	}}
	return &fakeWorld{types: types_, events: map[string]*types.Type{
		"syscalls:sys_enter_openat": event(field("dfd", types.Int64, 16), field("filename", types.PtrTo(types.Int8, types.User), 24)),
		"syscalls:sys_enter_open":   event(field("filename", types.PtrTo(types.Int8, types.User), 16)),
		"syscalls:sys_enter_read": event(field("__syscall_nr", types.Int32, 8), field("fd", types.Uint64, 16),
			field("buf", types.PtrTo(types.Int8, types.User), 24), field("count", types.Uint64, 32)),
		"syscalls:sys_exit_read": event(field("ret", types.Int64, 16)),
		"net:netif_receive_skb": event(field("skbaddr", types.PtrTo(types.VoidT, types.Kernel), 8), field("len", types.Uint32, 16),
			types.Field{Name: "name", Type: types.StringT(64), Off: 20, DataLoc: true}),
	}}
}

func field(name string, t *types.Type, off int) types.Field {
	return types.Field{Name: name, Type: t, Off: off}
}

func event(fs ...types.Field) *types.Type {
	fs = append([]types.Field{field("common_type", types.Uint16, 0)}, fs...)
	return &types.Type{Kind: types.Args, Size: 64, Fields: fs}
}

func (w *fakeWorld) Types() ctype.Lookup { return w.types }

func (w *fakeWorld) Expand(p check.AttachPoint) ([]check.Target, error) {
	var out []check.Target
	add := func(module, fn string) {
		name := p.Provider.Name + ":" + fn
		if p.Provider.Name == "tracepoint" || p.Provider.Space == types.User {
			name = p.Provider.Name + ":" + module + ":" + fn
		}
		out = append(out, check.Target{Provider: p.Provider.Name, Module: module, Func: fn, Offset: p.Offset, Name: name})
	}
	switch p.Provider.Name {
	case "tracepoint":
		for k := range w.events {
			var cat, ev string
			fmt.Sscanf(k, "%s", &cat)
			for i := range cat {
				if cat[i] == ':' {
					cat, ev = cat[:i], cat[i+1:]
					break
				}
			}
			if check.Match(p.Module, cat) && check.Match(p.Func, ev) {
				add(cat, ev)
			}
		}
	case "kprobe", "kretprobe", "fentry", "fexit":
		for f := range w.types.funcs {
			if check.Match(p.Func, f) {
				add("vmlinux", f)
			}
		}
	default:
		add(p.Module, p.Func)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	if len(out) == 0 {
		return nil, fmt.Errorf("No matches for %s %s.", p.Provider.Name, p.Func)
	}
	return out, nil
}

func (w *fakeWorld) Args(t check.Target) (*types.Type, *types.Type, error) {
	if t.Provider == "tracepoint" {
		if a, ok := w.events[t.Module+":"+t.Func]; ok {
			return a, nil, nil
		}
	}
	f, err := w.types.Func("", t.Func)
	if err != nil {
		return nil, nil, fmt.Errorf("no arguments known of %s", t.Name)
	}
	a := &types.Type{Kind: types.Args, Size: 8 * len(f.Params)}
	for i, p := range f.Params {
		a.Fields = append(a.Fields, types.Field{Name: p.Name, Type: types.FromC(p.Type, types.Kernel), Index: i})
	}
	return a, types.FromC(f.Result, types.Kernel), nil
}

func (w *fakeWorld) UserTypes(string) ctype.Lookup { return nil }

func (w *fakeWorld) Suggest(p check.AttachPoint) []string {
	if p.Provider.Name == "kprobe" {
		return []string{"kprobe:vfs_read"}
	}
	return nil
}

func (w *fakeWorld) Kallsyms(name string) (uint64, bool) {
	return 0xffffffff81000000, name == "avenrun"
}

func (w *fakeWorld) Kfunc(t check.Target, _ string) bool {
	return t.Provider == "fentry" || t.Provider == "iter"
}

func (w *fakeWorld) Usyms(_, name string) (uint64, uint64, bool) { return 0x1000, 4, name == "counter" }

// macros are a program's directives, without its declarations.
type macros struct {
	ctype.Lookup
	pp *cpp.Preprocessor
}

func (m macros) MacroValue(name string) (int64, bool) { return m.pp.Value(name) }
func (m macros) MacroText(name string) (string, bool) { return m.pp.Macro(name) }

func declare(defs []*syntax.CDef, base ctype.Lookup) (ctype.Lookup, []syntax.Diag) {
	m := macros{base, cpp.New(cpp.Options{})}
	for _, d := range defs {
		m.pp.Run("", d.Text)
	}
	return m, nil
}
