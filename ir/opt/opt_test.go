package opt

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ir"
)

// TestOrder holds the table of passes against what is said of their order.
func TestOrder(t *testing.T) {
	at := func(name string) int {
		return slices.IndexFunc(passes, func(p pass) bool { return p.name == name })
	}
	for _, o := range order {
		if at(o.a) < 0 || at(o.b) < 0 || at(o.a) > at(o.b) {
			t.Errorf("%s must run before %s: %s", o.a, o.b, o.why)
		}
	}
}

// tidy takes the indentation off a text.
func tidy(s string) string {
	var out []string
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func body(f *ir.Func) string {
	_, s, _ := strings.Cut(f.String(), "\n")
	return tidy(s)
}

var passTests = []struct{ name, pass, in, want string }{
	// flow
	{"jump to jump", "flow", `b0: if v1 == 0 goto b1 else b2
		b1: goto b3
		b2: return 1
		b3: return 2`, `b0: if v1 == 0 goto b2 else b1
		b1: return 1
		b2: return 2`},
	{"both ways the same", "flow", `b0: if v1 == 0 goto b1 else b1
		b1: return 1`, `b0: v1 = arg 0
		return 1`},
	{"known on the way", "flow", `b0: if v1 == 0 goto b1 else b2
		b1: v2 = 1
		goto b3
		b2: v2 = 0
		goto b3
		b3: if v2 != 0 goto b4 else b5
		b4: return 4
		b5: return 5`, `b0: if v1 == 0 goto b1 else b2
		b1: v2 = 1
		return 4
		b2: v2 = 0
		return 5`},
	{"asked before", "flow", `b0: v1 = arg 0
		if v1 == 2 goto b2 else b1
		b1: if v1 == 10 goto b2 else b5
		b2: if v1 == 2 goto b3 else b4
		b3: return 3
		b4: return 4
		b5: return 5`, `b0: v1 = arg 0
		if v1 == 2 goto b2 else b1
		b1: if v1 == 10 goto b3 else b4
		b2: return 3
		b3: return 4
		b4: return 5`},
	{"unreachable", "flow", `b0: return 1
		b1: v2 = 1
		return 2`, `b0: return 1`},
	{"endless loop stays", "flow", `b0: goto b1
		b1: goto b1`, `b0: goto b1
		b1: goto b1`},

	// split
	{"a variable used twice", "split", `b0: v1 = call #5[]
		u64[s+0] = v1
		v1 = call #5[]
		u64[s+8] = v1
		return 0`, `b0: v1 = call #5[]
		u64[s+0] = v1
		v2 = call #5[]
		u64[s+8] = v2
		return 0`},
	{"a variable assigned in two ways", "split", `b0: v1 = 1
		if v2 == 0 goto b1 else b2
		b1: v1 = 2
		goto b2
		b2: return v1`, `b0: v1 = 1
		if v2 == 0 goto b1 else b2
		b1: v1 = 2
		goto b2
		b2: return v1`},

	// values
	{"constants", "values", `b0: v1 = 6
		v2 = v1 * 7
		v3 = v2 / 0
		v4 = v2 % 0
		u64[s+0] = v3
		return v4`, `b0: v1 = 6
		v2 = 42
		v3 = 0
		v4 = 42
		u64[s+0] = 0
		return 42`},
	{"the least number divided", "values", `b0: v1 = -9223372036854775808
		v2 = v1 s/ -1
		v3 = v1 s% -1
		u64[s+0] = v2
		return v3`, `b0: v1 = -9223372036854775808
		v2 = -9223372036854775808
		v3 = 0
		u64[s+0] = v2
		return 0`},
	{"powers of two", "values", `b0: v1 = arg 0
		v2 = v1 * 8
		v3 = v1 / 16
		v4 = v1 % 16
		v5 = v1 s/ 16
		v6 = v1 << 64
		return v2`, `b0: v1 = arg 0
		v2 = v1 << 3
		v3 = v1 >> 4
		v4 = v1 & 15
		v5 = v1 s/ 16
		v6 = v1
		return v2`},
	{"division of what is not negative", "values", `b0: v1 = arg 0
		v2 = u32(v1)
		v3 = v2 s/ 16
		v4 = v2 s% 10
		v5 = v2 s>> 3
		return v3`, `b0: v1 = arg 0
		v2 = u32(v1)
		v3 = v2 >> 4
		v4 = v2 % 10
		v5 = v2 >> 3
		return v3`},
	{"sums", "values", `b0: v1 = arg 0
		v2 = v1 + 3
		v3 = v2 - 1
		v4 = 5 + v3
		v5 = v4 - v4
		return v4`, `b0: v1 = arg 0
		v2 = v1 + 3
		v3 = v1 + 2
		v4 = v1 + 7
		v5 = 0
		return v4`},
	{"masks and extensions that change nothing", "values", `b0: v1 = u16[s+0]
		v2 = u32(v1)
		v3 = v2 & 65535
		v4 = s32(v3)
		v5 = u8(v4)
		u8[s+8] = v5
		return v4`, `b0: v1 = u16[s+0]
		v2 = v1
		v3 = v1
		v4 = v1
		v5 = u8(v1)
		u8[s+8] = v1
		return v1`},
	{"a mask without immediate", "values", `b0: v1 = arg 0
		v2 = v1 & 4294967295
		return v2`, `b0: v1 = arg 0
		v2 = u32(v1)
		return v2`},
	{"a copy of a variable ends with it", "values", `b0: v1 = 1
		goto b1
		b1: v2 = v1
		v1 = v1 + 1
		u64[s+0] = v2
		if v1 < 10 goto b1 else b2
		b2: return v1`, `b0: v1 = 1
		goto b1
		b1: v2 = v1
		v1 = v1 + 1
		u64[s+0] = v2
		if v1 < 10 goto b1 else b2
		b2: return v1`},
	{"asked once", "values", `b0: v1 = call #14[]
		v2 = v1 >> 32
		v3 = call #5[]
		v4 = call #14[]
		v5 = v4 >> 32
		u64[s+0] = v2
		u64[s+8] = v5
		return v3`, `b0: v1 = call #14[]
		v2 = v1 >> 32
		v3 = call #5[]
		v4 = v1
		v5 = v1 >> 32
		u64[s+0] = v2
		u64[s+8] = v5
		return v3`},
	{"asked on one way only", "values", `b0: v1 = arg 0
		if v1 == 0 goto b1 else b2
		b1: v2 = call #14[]
		u64[s+0] = v2
		goto b2
		b2: v3 = call #14[]
		return v3`, `b0: v1 = arg 0
		if v1 == 0 goto b1 else b2
		b1: v2 = call #14[]
		u64[s+0] = v2
		goto b2
		b2: v3 = call #14[]
		return v3`},
	{"a pointer is tested once", "values", `b0: v1 = call #1[]
		if v1 != 0 goto b1 else b2
		b1: v2 = u64[v1+0]
		if v1 == 0 goto b2 else b3
		b2: return 0
		b3: return v2`, `b0: v1 = call #1[]
		if v1 != 0 goto b1 else b2
		b1: v2 = u64[v1+0]
		goto b3
		b2: return 0
		b3: return v2`},
	{"bounds are kept", "values", `b0: v1 = arg 0
		v2 = u8(v1)
		if v2 <= 255 goto b1 else b2
		b1: if v2 > 9 goto b2 else b3
		b2: return 0
		b3: if v2 < 10 goto b4 else b2
		b4: return v2`, `b0: v1 = arg 0
		v2 = u8(v1)
		goto b1
		b1: if v2 > 9 goto b2 else b3
		b2: return 0
		b3: goto b4
		b4: return v2`},
	{"of division nothing is known, as the verifier", "values", `b0: v1 = arg 0
		v2 = v1 % 10
		if v2 < 10 goto b1 else b2
		b1: return v2
		b2: return 0`, `b0: v1 = arg 0
		v2 = v1 % 10
		if v2 < 10 goto b1 else b2
		b1: return v2
		b2: return 0`},
	{"a test of bits", "values", `b0: v1 = arg 0
		v2 = v1 & 6
		if v2 == 0 goto b1 else b2
		b1: return 1
		b2: return 2`, `b0: v1 = arg 0
		v2 = v1 & 6
		if v1 & 6 goto b2 else b1
		b1: return 1
		b2: return 2`},
	{"addresses go into operands", "values", `b0: v1 = &[s+8]
		v2 = v1 + 8
		u64[v2+4] = 7
		v3 = arg 0
		v4 = v3 + 16
		v5 = u32[v4+8]
		return v5`, `b0: v1 = &[s+8]
		v2 = &[s+16]
		u64[s+20] = 7
		v3 = arg 0
		v4 = v3 + 16
		v5 = u32[v3+24]
		return v5`},

	// memory
	{"a store nobody reads", "memory", `b0: u64[s+0] = 1
		u64[s+8] = 2
		v1 = u32[s+8]
		return v1`, `b0: nop
		u64[s+8] = 2
		v1 = u32[s+8]
		return v1`},
	{"only padding is cleared", "memory", `b0: zero [s+0], 24
		u64[s+0] = 1
		u32[s+8] = 2
		u64[s+16] = 3
		output [s+0], 24
		return 0`, `b0: zero [s+12], 4
		u64[s+0] = 1
		u32[s+8] = 2
		u64[s+16] = 3
		output [s+0], 24
		return 0`},
	{"what was stored is loaded", "memory", `b0: v1 = arg 0
		u64[s+0] = v1
		v2 = u64[s+0]
		output [s+0], 8
		return v2`, `b0: v1 = arg 0
		u64[s+0] = v1
		v2 = u64(v1)
		output [s+0], 8
		return v2`},
	{"a helper fills", "memory", `b0: zero [s+0], 8
		v1 = &[s+0]
		v2 = call #113[v1 8 0]
		v3 = u64[s+0]
		return v3`, `b0: nop
		v1 = &[s+0]
		v2 = call #113[v1 8 0]
		v3 = u64[s+0]
		return v3`},
	{"a helper may write less", "memory", `b0: zero [s+0], 8
		v1 = &[s+0]
		v2 = call #115[v1 8 0]
		v3 = u64[s+0]
		return v3`, `b0: zero [s+0], 8
		v1 = &[s+0]
		v2 = call #115[v1 8 0]
		v3 = u64[s+0]
		return v3`},
	{"a key is read", "memory", `b0: zero [s+0], 16
		v1 = map @x
		v2 = &[s+0]
		v3 = call #1[v1 v2]
		return v3`, `b0: zero [s+0], 8
		v1 = map @x
		v2 = &[s+0]
		v3 = call #1[v1 v2]
		return v3`},
	{"shared with a callback", "memory", `b0: u64[x+0] = 1
		return 0`, `b0: u64[x+0] = 1
		return 0`},
	{"an address that is reckoned with", "memory", `b0: u64[s+0] = 1
		v1 = &[s+0]
		v2 = arg 0
		v3 = v1 + v2
		v4 = u8[v3+0]
		return v4`, `b0: u64[s+0] = 1
		v1 = &[s+0]
		v2 = arg 0
		v3 = v1 + v2
		v4 = u8[v3+0]
		return v4`},
	{"read on one way", "memory", `b0: u64[s+0] = 1
		v1 = arg 0
		if v1 == 0 goto b1 else b2
		b1: v2 = u64[s+0]
		return v2
		b2: return 0`, `b0: u64[s+0] = 1
		v1 = arg 0
		if v1 == 0 goto b1 else b2
		b1: v2 = u64[s+0]
		return v2
		b2: return 0`},

	// stores
	{"halves", "stores", `b0: u32[s+8] = 7
		u16[s+12] = 0
		u8[s+14] = 0
		u8[s+15] = 0
		output [s+8], 8
		return 0`, `b0: nop
		nop
		nop
		u64[s+8] = 7
		output [s+8], 8
		return 0`},
	{"too wide for an immediate", "stores", `b0: u32[s+0] = 1
		u32[s+4] = 1
		output [s+0], 8
		return 0`, `b0: u32[s+0] = 1
		u32[s+4] = 1
		output [s+0], 8
		return 0`},
	{"not aligned", "stores", `b0: u32[s+4] = 0
		u32[s+8] = 0
		output [s+0], 12
		return 0`, `b0: u32[s+4] = 0
		u32[s+8] = 0
		output [s+0], 12
		return 0`},
	{"read between", "stores", `b0: u32[s+0] = 1
		v1 = u32[s+0]
		u32[s+4] = 0
		output [s+0], 8
		return v1`, `b0: u32[s+0] = 1
		v1 = u32[s+0]
		u32[s+4] = 0
		output [s+0], 8
		return v1`},
	{"overwritten between", "stores", `b0: u32[s+0] = 1
		u8[s+0] = 2
		u32[s+4] = 0
		output [s+0], 8
		return 0`, `b0: u32[s+0] = 1
		u8[s+0] = 2
		u32[s+4] = 0
		output [s+0], 8
		return 0`},

	// dead
	{"results nobody reads", "dead", `b0: v1 = arg 0
		v2 = v1 + 1
		v3 = call #14[]
		v4 = call #113[v1 8 0]
		v5 = u64[v1+0]
		return v1`, `b0: v1 = arg 0
		call #113[v1 8 0]
		return v1`},
	{"wanted in a loop", "dead", `b0: v1 = 0
		goto b1
		b1: v1 = v1 + 1
		if v1 < 5 goto b1 else b2
		b2: return 0`, `b0: v1 = 0
		goto b1
		b1: v1 = v1 + 1
		if v1 < 5 goto b1 else b2
		b2: return 0`},

	// tails
	{"the same end", "tails", `b0: v1 = arg 0
		if v1 == 1 goto b1 else b2
		b1: count filtered
		v2 = call #5[]
		u64[x+0] = v2
		return 0
		b2: if v1 == 2 goto b3 else b4
		b3: count filtered
		v3 = call #5[]
		u64[x+0] = v3
		return 0
		b4: return 1`, `b0: v1 = arg 0
		if v1 == 1 goto b1 else b2
		b1: count filtered
		v2 = call #5[]
		u64[x+0] = v2
		return 0
		b2: if v1 == 2 goto b1 else b3
		b3: return 1`},
	{"different ends", "tails", `b0: v1 = arg 0
		if v1 == 1 goto b1 else b2
		b1: u64[x+0] = v1
		return 0
		b2: u32[x+0] = v1
		return 0`, `b0: v1 = arg 0
		if v1 == 1 goto b1 else b2
		b1: u64[x+0] = v1
		return 0
		b2: u32[x+0] = v1
		return 0`},
}

func TestPasses(t *testing.T) {
	for _, tt := range passTests {
		t.Run(tt.pass+"/"+tt.name, func(t *testing.T) {
			// A block's name may stand before its first instruction; v1 … that nothing assigns are arguments.
			lines := func(s string) string { return strings.NewReplacer(": ", ":\n").Replace(tidy(s)) }
			f := parse(t, argue(lines(tt.in)))
			i := slices.IndexFunc(passes, func(p pass) bool { return p.name == tt.pass })
			changed := passes[i].run(f)
			if err := f.Unit.Check(); err != nil {
				t.Error(err)
			}
			want := argue(lines(tt.want))
			if d := cmp.Diff(want, body(f)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if same := argue(lines(tt.in)) == body(f); same && changed {
				t.Error("says it changed what it did not")
			} else if !same && !changed {
				t.Error("does not say it changed something")
			}
		})
	}
}

// argue assigns v1 or v2 at the start where a text reads one that it does not assign.
func argue(s string) string {
	for _, v := range []string{"v1", "v2"} {
		if strings.Contains(s, v) && !strings.Contains(s, "\n"+v+" = ") {
			s = strings.Replace(s, "b0:\n", "b0:\n"+v+" = arg 0\n", 1)
		}
	}
	return s
}
