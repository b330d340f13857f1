package dead

import (
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// current is the task that programs see.
type current struct {
	task *walk.Task
	pgd  uint64 // its page tables; 0 if it has no memory of its own

	stack, ids, cgroup bool // what the program asks for of a task beside its numbers and name
}

// setEnv sets what does not change between runs.
func (s *Session) setEnv(used map[int64]bool) {
	s.now.stack = used[int64(asm.FnGetStack)] || used[int64(asm.FnGetStackid)]
	s.now.ids, s.now.cgroup = used[int64(asm.FnGetCurrentUidGid)], used[int64(asm.FnGetCurrentCgroupId)]
	e := s.env
	e.PerCPUOffset = func(cpu uint32) (uint64, bool) { off := s.t.PerCPU(int(cpu)); return off, off != 0 }
	e.Symbol = func(addr uint64) string { return s.names.KernelSym(addr) }
	e.Path = func(addr uint64) (string, bool) {
		errs := &kernel.Errors{}
		name := walk.Path(kernel.Object(s.t, errs, "struct path", addr))
		return name, errs.First == nil
	}
	errs := &kernel.Errors{}
	e.Jiffies = kernel.Global(s.t, errs, "unsigned long", "jiffies_64").Uint()
}

// enter makes the task that an object belongs to the current one.
func (s *Session) enter(o object) {
	if o.task != nil && s.now.task != nil && s.now.task.Addr == o.task.Addr {
		return // its next file or mapping: the stack is the same
	}
	s.forget()
	if o.task == nil {
		return
	}
	e, k := s.env, o.task
	s.now.task = k
	e.Pid, e.Tgid, e.Comm, e.Task, e.CPU = uint32(k.PID), uint32(k.TGID), k.Comm, k.Addr, 0
	if k.CPU > 0 && k.CPU < s.cpus { // programs index their counters by it
		e.CPU = uint32(k.CPU)
	}
	errs := &kernel.Errors{} // what cannot be read of a task that was found is 0, as a failed read is
	v := kernel.Object(s.t, errs, "struct task_struct", k.Addr)
	if mm := v.Get("mm"); mm.Uint() != 0 {
		s.now.pgd = mm.Get("pgd").Uint()
	}
	if s.now.ids {
		e.UID, e.GID = uint32(v.Get("cred.uid.val").Uint()), uint32(v.Get("cred.gid.val").Uint())
	}
	if s.now.cgroup {
		e.CgroupID = v.Get("cgroups.dfl_cgrp.kn.id").Uint()
	}
	if s.now.stack {
		e.KernelStack = nil
		for _, f := range walk.Stack(s.t, *k).Frames {
			e.KernelStack = append(e.KernelStack, f.PC)
			if !f.Call {
				s.names.at[f.PC] = true
			}
		}
	}
}

// forget makes no task the current one.
func (s *Session) forget() {
	s.now.task, s.now.pgd = nil, 0
	e := s.env
	e.Pid, e.Tgid, e.Comm, e.Task, e.CPU, e.UID, e.GID, e.CgroupID, e.KernelStack = 0, 0, "", 0, 0, 0, 0, 0, nil
}

// memory is the kernel's memory, and that of the current task, as the BPF machine reads it.
type memory Session

// ReadKernel implements vm.Target.
func (m *memory) ReadKernel(p []byte, addr uint64) error { return m.t.ReadVirt(p, addr) }

// ReadUser implements vm.Target.
func (m *memory) ReadUser(p []byte, addr uint64) error {
	u, ok := m.t.(kernel.UserMemory)
	if !ok || m.now.pgd == 0 {
		return &kernel.FaultError{Addr: addr, Err: errNoUser}
	}
	return u.ReadUser(p, m.now.pgd, addr)
}
