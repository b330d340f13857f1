package progen

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/ir"
)

// programs is how many programs a test makes: FATHOM_PROGRAMS, or few.
func programs(few int) int {
	if n, err := strconv.Atoi(os.Getenv("FATHOM_PROGRAMS")); err == nil {
		return n
	}
	return few
}

// random gives the numbers of a program.
func random(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 7)) }

// memory is bytes at addresses that look like the kernel's, made of the address; beyond it nothing can be read. Every
// eighth word points into it.
type memory struct {
	base uint64
	size int
}

func (m memory) ReadKernel(p []byte, addr uint64) error {
	if addr < m.base || addr+uint64(len(p)) > m.base+uint64(m.size) {
		return vm.EFAULT
	}
	for i := range p {
		at := addr + uint64(i)
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], m.word(at&^7))
		p[i] = w[at&7]
	}
	return nil
}

func (m memory) word(at uint64) uint64 {
	h := (at ^ at>>7) * 0x9e3779b97f4a7c15
	if h>>61 == 0 {
		return m.base + h%uint64(m.size)
	}
	if h>>61 == 1 {
		return 0
	}
	return h
}

func (m memory) ReadUser(p []byte, addr uint64) error { return vm.EFAULT }

// TestOptimised holds what optimised programs do against the same programs as built, in the BPF machine.
func TestOptimised(t *testing.T) {
	mem := memory{0xffff888000100000, 4096}
	env := &vm.Env{Pid: 1234, Tgid: 1230, UID: 1000, GID: 100, Comm: "progen", CPU: 1, Task: mem.base}
	checked := script.Codegen{After: func(pass string, u *ir.Unit) error {
		if err := u.Check(); err != nil {
			return fmt.Errorf("%w\n%v", err, u.Entry)
		}
		return nil
	}}
	before, after := 0, 0
	for seed := range programs(150) {
		text := Program(random(seed), Options{Memory: mem.base, MemorySize: mem.size})
		plain := compile(t, text, nil, 2, script.Codegen{NoOpt: true})
		fast := compile(t, text, nil, 2, checked)
		want, got := inMachine(t, plain, mem, env, 2), inMachine(t, fast, mem, env, 2)
		if d := cmp.Diff(want.lines, got.lines); d != "" {
			t.Fatalf("seed %d:\n%s\n(-as built +optimised)\n%s\n%v\n%v", seed, text, d, fast.Prog, fast.Obj.Programs[0].Insns)
		}
		before, after = before+size(plain), after+size(fast)
	}
	t.Logf("%d instructions, as built %d", after, before)
	if after > before {
		t.Errorf("optimised programs are larger: %d instructions, as built %d", after, before)
	}
}

func size(c *script.Compiled) int {
	n := 0
	for _, p := range c.Obj.Programs {
		n += len(p.Insns)
	}
	return n
}
