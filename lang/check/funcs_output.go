package check

import (
	"github.com/fathom-trace/fathom/lang/types"
)

// outputRows print, or end the program.
var outputRows = []*Func{
	{Name: "printf", Sig: "printf(fmt, args...)", Doc: "print formatted", Min: 1, Max: -1, Async: true, Void: true, spec: "f*", Check: checkFormat},
	{Name: "errorf", Sig: "errorf(fmt, args...)", Doc: "print an error with its place", Min: 1, Max: -1, Async: true, Void: true, spec: "f*", Check: checkFormat},
	{Name: "debugf", Sig: "debugf(const fmt, args...)", Doc: "print to the kernel's trace pipe", Min: 1, Max: 4, Void: true, spec: "f*", Check: checkFormat},
	{Name: "warnf", Sig: "warnf(fmt, args...)", Doc: "print a warning with its place", Min: 1, Max: -1, Async: true, Void: true, spec: "f*", Check: checkFormat},
	{Name: "system", Sig: "system(fmt, args...)", Doc: "run a command", Min: 1, Max: -1, Async: true, Void: true, Unsafe: true, spec: "f*", Check: checkFormat},
	{Name: "cat", Sig: "cat(fmt, args...)", Doc: "print a file", Min: 1, Max: -1, Async: true, Void: true, spec: "f*", Check: checkFormat},
	{Name: "print", Sig: "print(value) or print(@map[, top[, div]])", Doc: "print a value or a map", Min: 1, Max: 3, Async: true, Void: true, spec: "MII", Check: checkPrint},
	{Name: "time", Sig: "time([fmt])", Doc: "print the time of day", Max: 1, Async: true, Void: true, spec: "s", ret: types.VoidT},
	{Name: "join", Sig: "join(char *arr[][, delim])", Doc: "print an array of strings", Min: 1, Max: 2, Async: true, Void: true, spec: "*s", Check: checkJoin},
	{Name: "exit", Sig: "exit([code])", Doc: "end tracing", Max: 1, Async: true, Void: true, spec: "i", ret: types.VoidT},
	{Name: "assert", Sig: "assert(cond, message)", Doc: "end with an error unless cond", Min: 2, Max: 2, Async: true, Void: true, spec: "*s", ret: types.VoidT},
	{Name: "static_assert", Sig: "static_assert(cond, message)", Doc: "refuse the program unless cond", Min: 2, Max: 2, Void: true, spec: "*s", Check: checkStaticAssert},
	{Name: "fail", Sig: "fail(fmt, args...)", Doc: "refuse the program", Min: 1, Max: -1, Void: true, spec: "f*", Check: checkFail},
	{Name: "unwatch", Sig: "unwatch(addr)", Doc: "remove a watchpoint", Min: 1, Max: 1, Async: true, Void: true, spec: "i", ret: types.VoidT},
	{Name: "skboutput", Sig: "skboutput(path, struct sk_buff *skb, length, offset)", Doc: "write a packet to a pcap file", Min: 4, Max: 4, Async: true, spec: "spii", Check: checkPacket},
}

func checkFormat(c *Call) *types.Type {
	f := ParseFormat(c.str(0))
	if msg := f.Check(c.T[1:]); msg != "" {
		c.errorf("%s", msg)
	}
	return types.VoidT
}

func checkPacket(c *Call) *types.Type {
	switch p := c.x.Provider.Name; p {
	case "fentry", "fexit", "rawtracepoint":
	default:
		c.errorf("skboutput can not be used with \"%s\" probes", p)
	}
	return types.Uint32
}

func checkPrint(c *Call) *types.Type {
	if m := c.wholeMap(0); m != nil {
		if !c.mapDefined(m) {
			return types.VoidT
		}
		if c.x.loops > 0 {
			c.warnf("Due to it's asynchronous nature using 'print()' in a loop can lead to unexpected behavior. " +
				"The map will likely be updated before the runtime can 'print' it.")
		}
		if m.Value.Kind == types.Stats && len(c.Args) > 1 {
			c.warnf("print()'s top and div arguments are ignored when used on stats() maps.")
		}
		return types.VoidT
	}
	switch t := c.T[0]; {
	case t.Kind >= types.Hist:
		c.errorf("Map type %v cannot print the value of individual keys. You must print the whole map.", t)
	case t.Kind == types.Void || t.Kind == types.Context:
		c.errorf("%v type passed to print() is not printable", t)
	case len(c.Args) != 1:
		c.errorf("Non-map print() only takes 1 argument, %d found", len(c.Args))
	}
	return types.VoidT
}

func checkJoin(c *Call) *types.Type {
	if t := c.T[0]; !isInt(t) && t.Kind != types.Ptr {
		c.errorf("join() only supports int or pointer arguments (%s provided)", kindWord(t))
	}
	return types.VoidT
}

func checkStaticAssert(c *Call) *types.Type {
	v, ok := c.constant(0)
	switch {
	case !ok:
		c.errorf("Unable to resolve comptime expression")
	case !v.truth():
		c.errorf("%s", c.str(1))
	}
	return types.VoidT
}

// checkFail reports the message: where it is looked at, the program is refused.
func checkFail(c *Call) *types.Type {
	var args []Const
	for i := range c.Args[1:] {
		v, ok := c.constant(i + 1)
		if !ok {
			c.errorf("fail() arguments need to be literals")
			return types.VoidT
		}
		args = append(args, v)
	}
	f := ParseFormat(c.str(0))
	if msg := f.Check(c.T[1:]); msg != "" {
		c.errorf("%s", msg)
		return types.VoidT
	}
	if c.x.dead == 0 {
		c.errorf("%s", f.render(args))
	}
	return types.VoidT
}
