package script

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// machine compiles src and loads it into the BPF machine.
func machine(t *testing.T, src string) (*Compiled, *vm.Machine) {
	t.Helper()
	c, diags := Compile(&syntax.Source{Name: "stdin", Text: src}, check.Options{}, build.Options{NumCPU: 2})
	for _, d := range diags {
		if d.Severity == syntax.Error {
			t.Fatalf("%s\n%v", src, d)
		}
	}
	cfg := vm.Config{Programs: map[string]asm.Instructions{}, Maps: map[string]*ebpf.MapSpec{}}
	for _, p := range c.Obj.Programs {
		cfg.Programs[p.Name] = p.Insns
	}
	for _, m := range c.Obj.Maps {
		cfg.Maps[m.Spec.Name] = m.Spec
	}
	m, err := vm.New(cfg)
	if err != nil {
		t.Fatalf("%s\n%v", src, err)
	}
	return c, m
}

// TestScalarMap runs programs that leave a number in @r.
func TestScalarMap(t *testing.T) {
	tests := []struct {
		name, src string
		want      uint64
	}{
		{"constant", `begin { @r = 42; }`, 42},
		{"arithmetic", `begin { $a = 7; $b = 3; @r = ($a * $b + 1) % 10; }`, 2},
		{"negative division", `begin { $a = -7; @r = ($a / 2) + 10; }`, 7},
		{"if", `begin { $a = 5; if ($a > 3) { @r = 1; } else { @r = 2; } }`, 1},
		{"ternary", `begin { $a = 5; @r = $a == 5 ? 10 : 20; }`, 10},
		{"while", `begin { $i = 0; while ($i < 10) { $i++; } @r = $i; }`, 10},
		{"for range", `begin { $s = 0; for ($i : 0..5) { $s += $i; } @r = $s; }`, 10},
		{"break", `begin { $s = 0; for ($i : 0..100) { if ($i == 5) { break; } $s += 1; } @r = $s; }`, 5},
		{"continue", `begin { $s = 0; for ($i : 0..10) { if ($i % 2) { continue; } $s += 1; } @r = $s; }`, 5},
		{"return in loop", `begin { @r = 1; for ($i : 0..10) { if ($i == 2) { return; } } @r = 2; }`, 1},
		{"nested loops", `begin { $s = 0; for ($i : 0..3) { for ($j : 0..4) { $s++; } } @r = $s; }`, 12},
		{"unroll", `begin { @r = 0; unroll(5) { @r++; } }`, 5},
		{"keyed", `begin { @a["x", 1] = 5; @a["y", 2] = 6; @r = @a["x", 1] + @a["y", 2]; }`, 11},
		{"for map", `begin { @a[1] = 10; @a[2] = 20; $s = 0; for ($kv : @a) { $s += $kv.1; } @r = $s; }`, 30},
		{"string equal", `begin { $s = "hello"; if ($s == "hello") { @r = 1; } }`, 1},
		{"string differs", `begin { $s = "hello"; if ($s != "hellp") { @r = 1; } }`, 1},
		{"tuple", `begin { $t = (1, 2, "abc"); @r = $t.1; }`, 2},
		{"post increment", `begin { $a = 5; $b = $a++; @r = $b * 10 + $a; }`, 56},
		{"count cast", `begin { @c = count(); @c = count(); @r = (uint64)@c; }`, 2},
		{"strcontains", `begin { if (strcontains("hello world", "wor")) { @r = 1; } }`, 1},
		{"strncmp", `begin { if (strncmp("hello", "help", 3) == 0) { @r = 1; } }`, 1},
		{"a histogram has a key", `begin { @h[1] = hist(5); @h[1] = hist(500); @h[2] = hist(5); @r = (uint64)has_key(@h, 1) + 2 * (uint64)has_key(@h, 3); }`, 1},
		{"delete from a histogram", `begin { @h[1] = hist(5); @h[1] = hist(500); @h[2] = hist(5); delete(@h, 1); @r = (uint64)has_key(@h, 1) + 2 * (uint64)has_key(@h, 2); }`, 2},
		{"find", `begin { @a[1] = 7; let $v = 0; if (find(@a, 1, $v)) { @r = $v; } }`, 7},
		{"find missing", `begin { @a[1] = 7; $v = 3; if (!find(@a, 2, $v)) { @r = $v; } }`, 3},
		{"strstr", `begin { $s = "hello"; @r = strstr($s, "llo"); }`, 2},
		{"strstr missing", `begin { $s = "hello"; @r = strstr($s, "lx"); }`, ^uint64(0)},
		{"strstr empty", `begin { $s = "hello"; @r = strstr($s, ""); }`, 0},
		{"str_concat", `begin { $s = "foo"; $t = str_concat($s, "bar"); if ($t == "foobar") { @r = strlen($t); } }`, 6},
		{"memcmp equal", `begin { $s = "abc"; @r = memcmp($s, "abd", 2); }`, 0},
		{"memcmp less", `begin { $s = "abc"; @r = memcmp($s, "abd", 3); }`, ^uint64(0)},
		{"strcap", `begin { $s = "abc"; @r = strcap($s); }`, 4},
		{"include", "#include <limits.h>\n#define N (INT_MAX - 2)\nbegin { @r = N; }", 1<<31 - 3},
		{"system call", `begin { @r = __NR_openat; }`, 257},
		{"logical", `begin { $a = 1; $b = 0; @r = ($a && !$b) || $b; }`, 1},
		{"shift", `begin { $a = 1; @r = ($a << 10) >> 2; }`, 256},
		{"macro", `macro twice(x) { x + x } begin { @r = twice(21); }`, 42},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, m := machine(t, tt.src)
			if _, err := m.Run(c.Obj.Programs[0].Name, nil); err != nil {
				t.Fatalf("%s\n%v\n%v", tt.src, err, c.Obj.Programs[0].Insns)
			}
			mp := m.Map("at_r")
			v, _ := mp.Lookup(make([]byte, 4))
			got := binary.LittleEndian.Uint64(append(append([]byte(nil), v...), make([]byte, 8)...)[:8])
			if got != tt.want {
				t.Errorf("%s\n@r = %d, want %d\n%v", tt.src, got, tt.want, c.Obj.Programs[0].Insns)
			}
		})
	}
}

// TestUserPointers sees that what uptr() was said of is read from the process, also where it came out of user memory itself.
func TestUserPointers(t *testing.T) {
	for _, src := range []string{
		`begin { $p = (uint64)1; print(str(uptr(*(uint64*)uptr($p)))); }`,
		`begin { $p = (uint64)1; print(str(uptr(*uptr($p)))); }`,
		`begin { $p = (uint64)1; $q = *(uint64*)uptr($p); print(str(uptr($q))); }`,
	} {
		c, _ := machine(t, src)
		for _, u := range c.Prog.Units {
			for _, b := range u.Entry.Blocks {
				for _, n := range b.Ins {
					if n.Op == ir.Call && (n.Fn == ir.FnProbeReadKernel || n.Fn == ir.FnProbeReadKernelStr) {
						t.Errorf("%s\nreads kernel memory: helper %d", src, n.Fn)
					}
				}
			}
		}
	}
}
