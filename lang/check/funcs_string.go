package check

import (
	"net/netip"

	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// stringRows work on strings.
var stringRows = []*Func{
	{Name: "strncmp", Sig: "strncmp(string a, string b, const int n)", Doc: "compare n characters", Min: 3, Max: 3, spec: "SSI", ret: types.Uint64, Check: checkStrncmp},
	{Name: "strcontains", Sig: "strcontains(haystack, needle)", Doc: "whether a string is in another", Min: 2, Max: 2, Check: checkStrings(types.BoolT)},
	{Name: "strstr", Sig: "strstr(haystack, needle)", Doc: "where a string is in another, or -1", Min: 2, Max: 2, Check: checkStrings(types.Int64)},
	{Name: "strlen", Sig: "strlen(string)", Doc: "length of a string", Min: 1, Max: 1, Check: checkStrlen},
	{Name: "strcap", Sig: "strcap(string)", Doc: "bytes a string has room for", Min: 1, Max: 1, Check: checkStrcap},
	{Name: "str_concat", Sig: "str_concat(string a, string b)", Doc: "join two strings", Min: 2, Max: 2, Check: checkConcat},
	{Name: "memcmp", Sig: "memcmp(a, b, int n)", Doc: "compare n bytes", Min: 3, Max: 3, spec: "**i", ret: types.Int64},
	{Name: "strftime", Sig: "strftime(const string fmt, int ns)", Doc: "time as text", Min: 2, Max: 2, spec: "si", Check: checkStrftime},
	{Name: "strerror", Sig: "strerror(int errno)", Doc: "name of an error", Min: 1, Max: 1, spec: "i", ret: &types.Type{Kind: types.Strerror, Size: 8}},
	{Name: "signal_name", Sig: "signal_name(int sig)", Doc: "what a signal means", Min: 1, Max: 1, spec: "i", ret: &types.Type{Kind: types.SignalName, Size: 8}},
	{Name: "syscall_name", Sig: "syscall_name(int nr)", Doc: "name of a system call", Min: 1, Max: 1, spec: "i", ret: &types.Type{Kind: types.SyscallName, Size: 8}},
}

// stringLike reports what the string functions take.
func stringLike(t *types.Type) bool {
	return t.Kind == types.String || t.Kind == types.ProbeName || isCharArray(t) || t.Kind == types.Ptr && t.Elem.Size == 1
}

func (c *Call) wantStrings() bool {
	for i, t := range c.T {
		if !stringLike(t) {
			c.x.errorf(c.Args[i].Where(), "string-like values must be either strings, arrays or pointers")
			return false
		}
	}
	return true
}

func checkStrings(ret *types.Type) func(*Call) *types.Type {
	return func(c *Call) *types.Type {
		c.wantStrings()
		return ret
	}
}

func checkStrncmp(c *Call) *types.Type {
	if n, _ := c.constant(2); n.Int < 0 {
		c.errorf("Builtin strncmp requires a non-negative literal")
	}
	return types.Uint64
}

func checkStrlen(c *Call) *types.Type {
	if c.wantStrings() {
		if v, ok := c.constant(0); ok && v.IsStr {
			c.x.Consts[c.Expr] = Const{Int: int64(len(v.Str))}
		}
	}
	return types.Uint64
}

// checkStrcap knows the room of strings and arrays; a pointer has the default.
func checkStrcap(c *Call) *types.Type {
	if !c.wantStrings() {
		return types.Int64
	}
	n := c.x.c.cfg.MaxStrlen
	if t := c.T[0]; t.Kind != types.Ptr {
		n = t.Size
	}
	return c.x.known(c.Expr, Const{Int: int64(n)})
}

func checkConcat(c *Call) *types.Type {
	if !c.wantStrings() {
		return types.NoneT
	}
	n := 0
	for _, t := range c.T {
		if t.Kind == types.Ptr {
			n += c.x.c.cfg.MaxStrlen
			continue
		}
		n += t.Size
	}
	return types.StringT(min(n, c.x.c.cfg.MaxStrlen))
}

func checkStrftime(c *Call) *types.Type {
	if v, ok := c.constant(1); ok && v.Int < 0 && !v.big {
		c.errorf("strftime() does not accept negative timestamps")
	}
	if n, ok := c.Args[1].(*syntax.Call); ok && n.Name == "nsecs" && len(n.Args) == 1 {
		if id, ok := n.Args[0].(*syntax.Ident); ok && id.Name == "monotonic" {
			c.errorf("strftime() can not take a monotonic timestamp")
		}
	}
	return &types.Type{Kind: types.Strftime, Size: 24}
}

// convertRows change how a value is seen.
var convertRows = []*Func{
	{Name: "bswap", Sig: "bswap(int n)", Doc: "reverse the bytes", Min: 1, Max: 1, Check: checkBswap},
	{Name: "pton", Sig: "pton(const string addr)", Doc: "bytes of an IP address", Min: 1, Max: 1, spec: "*", Check: checkPton},
	{Name: "cgroupid", Sig: "cgroupid(const string path)", Doc: "ID of a cgroup", Min: 1, Max: 1, spec: "s", ret: types.Uint64},
	{Name: "is_err", Sig: "is_err(ptr)", Doc: "whether a pointer is an error code", Min: 1, Max: 1, Check: checkIsErr},
}

func checkBswap(c *Call) *types.Type {
	if t := c.T[0]; isInt(t) {
		return types.IntT(t.Size, false)
	}
	c.errorf("bswap() only supports integer arguments (%s provided)", kindWord(c.T[0]))
	return types.NoneT
}

func checkPton(c *Call) *types.Type {
	v, ok := c.constant(0)
	if !ok || !v.IsStr {
		c.errorf("pton() expects an string literal at the first argument")
		return types.NoneT
	}
	a, err := netip.ParseAddr(v.Str)
	if err != nil || a.Zone() != "" {
		c.errorf("pton() expects a valid IPv4/IPv6 address, got %s", v.Str)
		return types.NoneT
	}
	return types.ArrayOf(types.Uint8, a.BitLen()/8)
}

func checkIsErr(c *Call) *types.Type {
	if t := c.T[0]; !isInt(t) && t.Kind != types.Ptr {
		c.errorf("is_err() expects an integer or pointer argument")
	}
	return types.BoolT
}
