package capture

import (
	"fmt"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/try"
)

// mostArg is how far back among a function's arguments the packet is looked for: those in registers.
const mostArg = 5

// functions writes a program for each place among the arguments at which functions have a packet, to be attached to all of
// them at once. It needs kprobe.multi: a probe for each of some hundred functions takes seconds to attach.
func (c *Capture) functions(w *probe.World, code *code, targets [][]probe.Target) [][]probe.Target {
	if len(code.o.Functions) == 0 || code.tracked == nil {
		return targets
	}
	if err := try.Detect(try.KprobeMulti); err != nil {
		c.missing = append(c.missing, "functions: kprobe.multi")
		return targets
	}
	have, err := w.FindFunctions(code.o.Functions)
	if err != nil {
		c.missing = append(c.missing, "functions: "+err.Error())
		return targets
	}
	modules := map[string]string{}
	for _, f := range have {
		modules[f.Name] = f.Module
	}
	var byArg [mostArg][]probe.Target
	for _, name := range code.o.Functions {
		module, ok := modules[name]
		if !ok {
			continue
		}
		if i := skbArg(w.Types(), module, name); i >= 0 {
			byArg[i] = append(byArg[i], probe.Target{Provider: "kprobe", Module: module, Func: name, Name: "kprobe:" + name})
			c.steps++
		}
	}
	for i, ts := range byArg {
		if len(ts) > 0 {
			code.step(len(targets), i)
			targets = append(targets, ts)
		}
	}
	return targets
}

// skbArg gives which argument of a function is a packet, -1 if none is.
func skbArg(types ctype.Lookup, module, name string) int {
	f, err := types.Func(module, name)
	if err != nil {
		return -1
	}
	for i, p := range f.Params {
		ptr, ok := ctype.Strip(p.Type).(*ctype.Ptr)
		if !ok || i >= mostArg {
			continue
		}
		if s, ok := ctype.Strip(ptr.Elem).(*ctype.Struct); ok && s.Name == "sk_buff" {
			return i
		}
	}
	return -1
}

// step writes the program of functions that have a packet as argument i. It tells of packets that are followed already:
// most of what runs it is not, so it looks at the address alone first.
func (c *code) step(targets, i int) {
	u := c.p.Unit("kprobe", targets, fmt.Sprintf("step%d", i))
	p := &seen{u: u, rec: u.Slot("record", recSize), raw: u.Slot("skb", c.l.skbSize), skb: u.Arg(i)}
	key := u.Slot("key", 8)
	u.Store(key, 8, p.skb)
	u.Lookup(c.tracked, key, nil, func() { u.Count(ir.Filtered); u.Return(ir.Imm(0)) })
	u.Read(p.raw, c.l.skbSize, p.skb)
	p.head, p.dev = p.load(c.l.head), p.load(c.l.dev)
	c.headers(p)
	c.begin(p)
	u.Store(p.rec.At(recArg), 8, u.FuncIP())
	c.describe(p)
	c.tell(u, p.rec, packet.Step)
	u.Output(p.rec, recStack, emit.WakeNever)
	u.Return(ir.Imm(0))
}
