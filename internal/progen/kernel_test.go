package progen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/kernel/live"
)

// A guest that QEMU translates takes half a second for a program.
var guests = ktest.Config{Env: []string{"FATHOM_PROGRAMS=" + os.Getenv("FATHOM_PROGRAMS")},
	Kernels: []string{"debian-6.12", "debian-6.1"}, Timeout: 10*time.Minute + time.Duration(programs(0))*time.Second}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// TestKernel holds what programs do in the kernel against what the BPF machine says they do. The verifier must take all.
func TestKernel(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.Ringbuf, ktest.RawTracepoint)
	_ = rlimit.RemoveMemlock()
	pin(t)
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kernelTypes, err := l.Types()
	if err != nil {
		t.Fatal(err)
	}
	w := world{kernelTypes}
	cpus := ebpf.MustPossibleCPU()
	env, target := here(t, w, cpus)
	rejected, total := 0, programs(200)
	var cost verifierCost
	for seed := range total {
		// The first page cannot be read anywhere.
		text := Program(random(seed), Options{Task: true, Memory: 64, MemorySize: 1024})
		c := compile(t, text, w, cpus, script.Codegen{})
		cost.seed = seed
		got, err := inKernel(c, &cost)
		if err != nil {
			rejected++
			t.Errorf("seed %d:\n%s\n%v", seed, text, rejection(err))
			if rejected > 5 {
				t.Fatal("too many")
			}
			continue
		}
		want := inMachine(t, c, target, env, cpus)
		if d := cmp.Diff(want.lines, got.lines); d != "" {
			t.Fatalf("seed %d:\n%s\n%s\n(-machine +kernel)\n%v", seed, text, d, c.Obj.Programs[0].Insns)
		}
	}
	t.Logf("%d programs, %d rejected; the verifier looked at %d instructions each, at most %d (seed %d)",
		total, rejected, cost.sum/max(1, total), cost.most, cost.mostSeed)
}

// rejection gives the end of what the verifier says.
func rejection(err error) string {
	var ve *ebpf.VerifierError
	if !errors.As(err, &ve) {
		return err.Error()
	}
	return fmt.Sprintf("%v\n%s", err, strings.Join(ve.Log[max(0, len(ve.Log)-40):], "\n"))
}

// verifierCost sums what the verifier looked at.
type verifierCost struct{ sum, most, seed, mostSeed int }

func (c *verifierCost) add(log string) {
	_, n, ok := strings.Cut(log, "processed ")
	if !ok || c == nil {
		return
	}
	var insns int
	fmt.Sscan(n, &insns)
	c.sum += insns
	if insns > c.most {
		c.most, c.mostSeed = insns, c.seed
	}
}

// pin keeps the test on one thread and CPU: programs ask for both.
func pin(t *testing.T) {
	runtime.LockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if old.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.SchedSetaffinity(0, &old)
		runtime.UnlockOSThread()
	})
}

// tasks is memory that has the parts of two task_structs that programs read: this thread's and its leader's.
type tasks map[uint64]uint64 // by word

func (m tasks) ReadKernel(p []byte, addr uint64) error {
	for i := range p {
		at := addr + uint64(i)
		w, ok := m[at&^7]
		if !ok {
			return vm.EFAULT
		}
		p[i] = byte(w >> (8 * (at & 7)))
	}
	return nil
}

func (m tasks) ReadUser([]byte, uint64) error { return vm.EFAULT }

func (m tasks) write(addr uint64, b []byte) {
	for i, c := range b {
		at := addr + uint64(i)
		sh := 8 * (at & 7)
		m[at&^7] = m[at&^7]&^(0xff<<sh) | uint64(c)<<sh
	}
}

// here gives the machine the surroundings that programs have in the kernel: a program is asked for the numbers.
func here(t *testing.T, w world, cpus int) (*vm.Env, vm.Target) {
	c := compile(t, `begin { @ = (pid, tid, uid, gid, cpu, comm, curtask.group_leader.comm); }`, w, cpus, script.Codegen{})
	o, err := inKernel(c, nil)
	if err != nil {
		t.Fatal(rejection(err))
	}
	var value []byte
	for _, l := range o.lines {
		if v, ok := strings.CutPrefix(l, "@[00000000] = "); ok {
			fmt.Sscanf(v, "%x", &value)
		}
	}
	if len(value) < 56 {
		t.Fatalf("no surroundings in %v", o.lines)
	}
	f := c.Prog.Maps[2].Value.Fields
	num := func(i int) uint32 { return binary.LittleEndian.Uint32(value[f[i].Off:]) }
	text := func(i int) []byte { return value[f[i].Off : f[i].Off+16] }
	const task, leader = 0xffff888000100000, 0xffff888000200000
	env := &vm.Env{Tgid: num(0), Pid: num(1), UID: num(2), GID: num(3), CPU: num(4), Task: task, Comm: string(bytes.TrimRight(text(5), "\x00"))}
	return env, taskMemory(t, w, task, leader, env, text(5), text(6))
}

func taskMemory(t *testing.T, w world, task, leader uint64, env *vm.Env, comm, leaderComm []byte) tasks {
	ct, err := w.types.ByName(ctype.KindStruct, "task_struct")
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) uint64 {
		m, ok := ct.(*ctype.Struct).Member(name)
		if !ok {
			t.Fatalf("no %s in task_struct", name)
		}
		return uint64(m.BitOff / 8)
	}
	m := tasks{}
	num := func(addr uint64, n uint64, size int) { m.write(addr, binary.LittleEndian.AppendUint64(nil, n)[:size]) }
	for _, one := range []struct {
		addr uint64
		pid  uint32
		comm []byte
	}{{task, env.Pid, comm}, {leader, env.Tgid, leaderComm}} {
		num(one.addr+at("pid"), uint64(one.pid), 4)
		num(one.addr+at("tgid"), uint64(env.Tgid), 4)
		num(one.addr+at("group_leader"), leader, 8)
		m.write(one.addr+at("comm"), one.comm)
	}
	return m
}

// inKernel loads and runs a program.
func inKernel(c *script.Compiled, cost *verifierCost) (*outcome, error) {
	ms := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range ms {
			m.Close()
		}
	}()
	for _, m := range c.Obj.Maps {
		spec := m.Spec.Copy()
		spec.Name = ""
		km, err := ebpf.NewMap(spec)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", m.IR.Name, err)
		}
		ms[m.Spec.Name] = km
	}
	var progs []*ebpf.Program
	for _, p := range c.Obj.Programs {
		insns := append(p.Insns[:0:0], p.Insns...)
		for i := range insns {
			if insns[i].IsLoadFromMap() {
				if err := insns[i].AssociateMap(ms[insns[i].Reference()]); err != nil {
					return nil, err
				}
			}
		}
		kp, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{Name: "progen", Type: p.Type, License: "GPL", Instructions: insns},
			ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats})
		if err != nil {
			return nil, err
		}
		cost.add(kp.VerifierLog)
		defer kp.Close()
		progs = append(progs, kp)
	}
	rd, err := ringbuf.NewReader(ms["ring"])
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	o := &outcome{}
	for range runs {
		for _, p := range progs {
			r0, err := p.Run(&ebpf.RunOptions{})
			if err != nil {
				return nil, err
			}
			o.add("returned %d", r0)
		}
		for rd.AvailableBytes() > 0 {
			rec, err := rd.Read()
			if err != nil {
				return nil, err
			}
			o.record(c, rec.RawSample)
		}
	}
	for _, m := range c.Obj.Maps {
		if m.IR.Kind != ir.Ring {
			o.entries(m.IR, kernelEntries(ms[m.Spec.Name], m.IR.Kind.PerCPU()))
		}
	}
	return o, nil
}

func kernelEntries(m *ebpf.Map, perCPU bool) map[string]string {
	all := map[string]string{}
	it := m.Iterate()
	var k []byte
	if perCPU {
		var v [][]byte
		for it.Next(&k, &v) {
			var b []byte
			for _, one := range v {
				b = append(b, one...)
				b = append(b, make([]byte, -len(one)&7)...)
			}
			all[fmt.Sprintf("%x", k)] = fmt.Sprintf("%x", b)
		}
		return all
	}
	var v []byte
	for it.Next(&k, &v) {
		all[fmt.Sprintf("%x", k)] = fmt.Sprintf("%x", v)
	}
	return all
}
