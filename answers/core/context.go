package core

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// set chooses the task that commands mean which name none; without arguments it says which that is, the one that died if none was
// chosen.
func (s *Session) set(w io.Writer, args []string) error {
	o, err := parse(args, "p", "c")
	if err != nil {
		return err
	}
	given := len(o.rest)
	for _, f := range []byte("pc") {
		if o.on[f] {
			given++
		}
	}
	switch {
	case given > 1:
		return &Usage{}
	case o.on['p']:
		s.chosen = nil
	case o.on['c']:
		cpus, err := s.cpus(o.val['c'])
		if err != nil {
			return err
		}
		if len(cpus) != 1 {
			return &Usage{"set -c takes one CPU"}
		}
		t, err := walk.Executing(s.t, cpus[0])
		if err != nil {
			return err
		}
		s.chosen = &t
	case given == 1:
		tasks, err := s.find(o.rest[0])
		if err != nil {
			return err
		}
		if len(tasks) > 1 {
			return fmt.Errorf("%d tasks are %s: say which by its PID", len(tasks), o.rest[0])
		}
		s.chosen = &tasks[0]
	}
	t, err := s.current()
	if err == nil {
		s.taskLine(w, t)
	}
	return err
}

// current is the task that commands mean which name none.
func (s *Session) current() (walk.Task, error) {
	if s.chosen != nil {
		return *s.chosen, nil
	}
	t, _, err := s.crashed()
	return t, err
}

// vtop says what an address of the kernel, of a task, or of the machine is.
func (s *Session) vtop(w io.Writer, args []string) error {
	o, err := parse(args, "pu", "c")
	if err != nil {
		return err
	}
	if len(o.rest) != 1 || o.on['p'] && (o.on['u'] || o.on['c']) {
		return &Usage{}
	}
	at := o.rest[0]
	if o.on['u'] || o.on['c'] {
		err = s.userAddress(w, o.val['c'], at)
	} else {
		err = s.Address(w, at, o.on['p'])
	}
	if err != nil {
		return errors.Join(fmt.Errorf("address %s", at), err)
	}
	return nil
}

// userAddress says where the memory of a program is: of the task that who means, or of the current one.
func (s *Session) userAddress(w io.Writer, who, arg string) error {
	t, err := s.current()
	if who != "" {
		var tasks []walk.Task
		if tasks, err = s.find(who); err == nil {
			t = tasks[0]
		}
	}
	if err != nil {
		return err
	}
	at, ok := number(arg)
	if !ok {
		return fmt.Errorf("%s is no number", arg)
	}
	u, ok := s.t.(kernel.UserPages)
	if !ok {
		return errors.New("this kernel's user memory cannot be translated")
	}
	pgd, err := s.pageTables(t)
	if err != nil {
		return err
	}
	phys, err := u.TranslateUser(pgd, at)
	if err != nil {
		return err
	}
	s.taskLine(w, t)
	fmt.Fprintf(w, "%#x is at %#x\n", at, phys)
	return s.physical(w, phys)
}

// pageTables gives the address of a task's page tables.
func (s *Session) pageTables(t walk.Task) (uint64, error) {
	errs := &kernel.Errors{}
	v := kernel.Object(s.t, errs, "struct task_struct", t.Addr)
	if v.Get("mm").Uint() == 0 {
		return 0, fmt.Errorf("pid %d %s has no memory of its own", t.PID, t.Comm)
	}
	return v.Get("mm.pgd").Uint(), errs.Take()
}

// readUser reads a program's memory: that of the current task.
func (s *Session) readUser() (func([]byte, uint64) error, error) {
	t, err := s.current()
	if err != nil {
		return nil, err
	}
	u, ok := s.t.(kernel.UserMemory)
	if !ok {
		return nil, errors.New("this kernel's user memory cannot be translated")
	}
	pgd, err := s.pageTables(t)
	if err != nil {
		return nil, err
	}
	return func(p []byte, addr uint64) error { return u.ReadUser(p, pgd, addr) }, nil
}

// ptov gives the address in the map of all memory of physical ones.
func (s *Session) ptov(w io.Writer, args []string) error {
	m, err := walk.ReadMachine(s.t)
	if err != nil {
		return err
	}
	return each1(args, func(n uint64) { fmt.Fprintf(w, "%x: %016x\n", n, m.DirectMap+n) })
}

// systemCalls prints the table of system calls, or those of a number or name, and marks what leads out of the kernel's text.
func (s *Session) systemCalls(w io.Writer, args []string) error {
	if len(args) > 1 {
		return &Usage{}
	}
	table, start, end := s.t.Symbols().ByName("sys_call_table"), s.t.Symbols().ByName("_stext"), s.t.Symbols().ByName("_etext")
	if len(table) == 0 || len(start) == 0 || len(end) == 0 {
		return errors.New("the kernel has no table of system calls")
	}
	n, isNumber := uint64(0), false
	if len(args) > 0 {
		n, isNumber = number(args[0])
	}
	errs, found := &kernel.Errors{}, false
	for i := range maxSystemCalls {
		slot := table[0] + 8*uint64(i)
		if y, ok := s.t.Symbols().At(slot); !ok || y.Addr != table[0] { // another table begins
			break
		}
		at := kernel.Object(s.t, errs, "unsigned long", slot).Uint()
		if at == 0 { // room before what is next
			break
		}
		name, strange := "?", ""
		if y, ok := s.t.Symbols().At(at); ok {
			name = y.Name
		}
		if at < start[0] || at >= end[0] {
			strange = "  is not in the kernel's text"
		}
		if len(args) > 0 && (isNumber && uint64(i) != n || !isNumber && name != args[0] && strings.TrimPrefix(name, "__x64_sys_") != args[0]) {
			continue
		}
		found = true
		fmt.Fprintf(w, "%4d  %016x  %s%s\n", i, at, name, strange)
	}
	if err := errs.Take(); err != nil || found {
		return err
	}
	return fmt.Errorf("no system call is %s", args[0])
}

// maxSystemCalls is more than there are, by far.
const maxSystemCalls = 4096
