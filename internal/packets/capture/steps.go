package capture

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/try"
)

// mostArg is how far back among a function's arguments the packet is looked for: those in registers.
const mostArg = 5

// Functions attaches to the functions that were asked for, all at once: events of them come from some moment on while it
// runs, which is about as long as all that Open does. It gives how many they are, and how long attaching took once they were
// found and the program was loaded. It may run while another goroutine reads events, not beside other methods; when ctx is done, it ends soon.
func (c *Capture) Functions(ctx context.Context, w *probe.World) (n int, took time.Duration, err error) {
	if c.step < 0 {
		return 0, 0, nil
	}
	if err := try.Detect(try.KprobeMulti); err != nil { // to find functions takes memory
		return 0, 0, fmt.Errorf("watch functions: %w", err)
	}
	places, err := stepTargets(w, c.functions)
	if err == nil {
		err = c.sess.LoadMore(c.step)
	}
	begin := time.Now()
	if err == nil {
		n, err = c.sess.AttachTo(ctx, c.step, places)
	}
	if err != nil {
		return n, 0, fmt.Errorf("watch functions: %w", err)
	}
	return n, time.Since(begin), nil
}

// stepTargets finds the functions that this kernel has and that have a packet among their arguments; which argument it is becomes
// their cookie.
func stepTargets(w *probe.World, names []string) (places []probe.Place, err error) {
	have, err := w.FindFunctions(withSuccessors(names))
	if err != nil {
		return nil, err
	}
	found := map[string]probe.Function{}
	for _, f := range have {
		found[f.Name] = f
	}
	for _, name := range names {
		f, ok := found[name]
		if !ok {
			f, ok = found[packet.CompiledInto(name)]
		}
		if !ok {
			continue
		}
		if i := skbArg(w.Types(), f.Module, f.Name); i >= 0 {
			t := probe.Target{Provider: "kprobe", Module: f.Module, Func: f.Name, Name: "kprobe:" + f.Name}
			places = append(places, probe.Place{Target: t, Cookie: uint64(i), Addr: f.Addr})
		}
	}
	return places, nil
}

// withSuccessors adds the functions that some of these were compiled into.
func withSuccessors(names []string) []string {
	all := slices.Clone(names)
	for _, n := range names {
		if s := packet.CompiledInto(n); s != "" {
			all = append(all, s)
		}
	}
	return all
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

// steps writes the program of functions that have a packet as the argument that their cookie says. It tells of packets that
// are followed already: most of what runs it is not, so it looks at the address alone first.
func (c *code) steps(targets int) {
	u := c.p.Unit("kprobe", targets, "step")
	which, skb := u.Cookie(), u.Var(u.Arg(0))
	for i := 1; i < mostArg; i++ {
		u.If(ir.Eq, which, ir.Imm(int64(i)), func() { u.Set(skb, u.Arg(i)) }, nil)
	}
	p := &seen{u: u, rec: u.Slot("record", recSize), raw: u.Slot("skb", c.l.skbSize), skb: skb}
	hit := u.Var(ir.Imm(0))
	c.track.find(u, p.skb, hit)
	u.Unless(ir.Ne, hit, ir.Imm(0))
	u.Read(p.raw, c.l.skbSize, p.skb)
	p.head, p.dev = p.load(c.l.head), p.load(c.l.dev)
	c.headers(p)
	c.begin(p)
	u.Store(p.rec.At(recArg), 8, u.FuncIP())
	c.describe(p)
	c.tell(u, p.rec, ir.Imm(int64(packet.Step)))
	u.Output(p.rec, recStack, emit.WakeNever)
	u.Return(ir.Imm(0))
}
