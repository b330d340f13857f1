// Package core answers what a dead kernel was doing: a first page that says why it died, and commands with the names that
// crash(8) gave them. It stands on a [kernel.Target] and does not know where that comes from.
package core

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/unwind"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// Session is a kernel that is being looked at. It keeps what several commands need.
type Session struct {
	t      kernel.Target
	source string // what the dump is, for people
	lines  Lines
	always bool // all stacks have lines
	frames bool // all stacks have the memory of their frames

	tasks    []walk.Task
	tasksErr error
	haveTask bool
	chosen   *walk.Task // by set; nil for the one that died
}

// Lines says where in the source an instruction of the kernel is: function is the symbol it is in and off how far; call says
// that pc is a return address. The innermost inlined function comes first; nil where nobody knows.
type Lines func(function, module string, pc, off uint64, call bool) []string

// Source says who knows where in the source code is: bt -l and dis -l ask; with always, every stack that is printed does.
func (s *Session) Source(l Lines, always bool) { s.lines, s.always = l, always }

// New returns a Session; source says in a line what is being read.
func New(t kernel.Target, source string) *Session { return &Session{t: t, source: source} }

// Usage is a command that was called in a way it does not understand.
type Usage struct{ Msg string }

// Error is the message.
func (e *Usage) Error() string { return e.Msg }

// Command is one command.
type Command struct {
	Name, Args, Help string
	run              func(s *Session, w io.Writer, args []string) error
}

// Commands are all there are, by name.
func Commands() []Command {
	c := []Command{
		{"bt", "[-a|-c CPU,… [-n idle]|-g|-p] [-R NAME] [-f] [-l] [-e|-t|-T|-r] [PID|TASK]… | -v", "stacks: of who died, tasks, CPUs (-a -c, busy ones -n), all threads (-g); those with a function (-R); frames' memory (-f), lines (-l); exception frames (-e), code (-t), words (-r); overflows (-v)", (*Session).bt},
		{"foreach", "[kernel|user|STATE|PID|COMM…] bt|files|net|vm|sig|task|ps", "a command for all or some; equal stacks together", (*Session).foreach},
		{"log", "[-m] [-t|-T]", "the kernel's messages: levels (-m), no times (-t), time of day (-T)", (*Session).log},
		{"ps", "[-kuGA] [-p|-c|-a|-t|-l|-m] [-S] [PID|COMM]…", "tasks; parents, children, arguments, times, last run (-l -m); sums (-S)", (*Session).ps},
		{"mod", "", "modules", (*Session).mod},
		{"sys", "[-c [NAME|NUMBER]]", "the system: release, clock, CPUs, taint; system calls (-c)", (*Session).sys},
		{"kmem", "-i | [-I CACHE,…] -s|-S|-a [CACHE…] | -v [ADDRESS] | -p|-g|[-P] ADDRESS… | -n|-z|-f|-V|-o|-h", "memory: sums, slab caches, their objects, who allocated them (slub_debug=U), vmalloc, pages, what an address is, nodes, zones, free blocks …", (*Session).kmem},
		{"files", "[-R REF] [PID|TASK]…", "open files of a task; those that are a path, inode or address (-R)", (*Session).files},
		{"fuser", "PATH|INODE", "who has a file open, is in it, runs or maps it", (*Session).fuser},
		{"mount", "", "mounted file systems", (*Session).mount},
		{"net", "[-s [PID…] | -n [PID…] | -a]", "network devices, a task's namespace's (-n); sockets with their queues, a task's (-s); neighbours, ARP (-a)", (*Session).net},
		{"irq", "[-u] [-a|-s] [NUMBER…] | -b", "interrupts: in use (-u), CPUs they may go to (-a), counts (-s); softirqs (-b)", (*Session).irq},
		{"waitq", "", "who waits for which lock, work, completion or pipe, who holds it, and deadlocks", (*Session).waits},
		{"sym", "[-p] [-n] NAME|ADDRESS… | -l | -m MODULE | -q TEXT", "symbols, with neighbours (-p -n); all (-l), a module's, by part of the name", (*Session).sym},
		{"rd", "[-8|-16|-32] [-xdDsSapu] [-e END] ADDRESS [COUNT]", "memory: words, decimal (-d -D), symbols (-s), caches (-S), text (-a); physical (-p), a program's (-u)", (*Session).rd},
		{"dis", "[-r|-f] [-l] ADDRESS|SYMBOL[+N] [COUNT]", "instructions: up to (-r) or from (-f) an address; with lines (-l)", (*Session).dis},
		{"struct", "[-o|-r] [-x|-d] [-l OFFSET] TYPE[.MEMBER,…] [ADDRESS[:CPU,…] [COUNT]]", "a type's layout, or values; addresses of members (-o), words (-r), in hexadecimal (-x); of a member in it (-l)", (*Session).structure},
		{"union", "[-o|-r] [-x|-d] [-l OFFSET] TYPE[.MEMBER,…] [ADDRESS[:CPU,…] [COUNT]]", "as struct", (*Session).structure},
		{"whatis", "NAME", "a type's or function's declaration", (*Session).whatis},
		{"vm", "[-p|-m] [PID|TASK]… | -f FLAGS", "memory mappings; where their pages are (-p), mm_struct (-m), flags in words (-f)", (*Session).vm},
		{"sig", "[-g] [PID|TASK]… | -l | -s SET", "signals of tasks, of all threads (-g); their names (-l), those in a set (-s)", (*Session).sig},
		{"task", "[PID|TASK]… [-R MEMBER,…]", "struct task_struct, or members of it", (*Session).task},
		{"runq", "[-t|-m] [-c CPU,…]", "what CPUs run, and what waits to; when it began (-t), how long ago (-m)", (*Session).runq},
		{"ipcs", "[-s] [-m] [-q]", "System V semaphores (-s), shared memory (-m), message queues (-q)", (*Session).ipcs},
		{"timer", "[-r]", "timers of the timer wheel, high resolution timers (-r), by CPU", (*Session).timer},
		{"wq", "[-a]", "workqueues: what workers are at, what waits for one", (*Session).workqueues},
		{"vtop", "[-p] ADDRESS|SYMBOL[+N] | [-u] [-c PID] ADDRESS", "what an address is, and where it is mapped; a physical one (-p), a program's (-u, of which task -c)", (*Session).vtop},
		{"iomem", "", "physical addresses: memory, devices, drivers", (*Session).iomem},
		{"mach", "", "the machine, and where its kernel put memory", (*Session).mach},
		{"swap", "", "what memory is swapped to", (*Session).swap},
		{"search", "[-w|-h] [-m MASK] [-p|-t|-s START -e END|-l LENGTH] VALUE… | -c TEXT", "where memory holds words, ignoring bits (-m), or a text (-c): physical (-p), in stacks (-t), in a range", (*Session).search},
		{"bpf", "", "BPF programs and maps", (*Session).bpf},
		{"dev", "[-d|-D|-i|-p]", "drivers by major numbers; disks and their requests (-d, busy ones -D), I/O ports (-i), PCI (-p)", (*Session).dev},
		{"tree", "[-t rbtree|xarray|radix|maple] [-o] [TYPE.MEMBER] [-r TYPE.MEMBER] [-s TYPE.MEMBER,…] [-x] ROOT|-N NODE", "objects in a tree, with members of each (-s)", (*Session).tree},
		{"ptob", "PAGE…", "the byte that a page of this number begins at", (*Session).ptob},
		{"ptov", "ADDRESS…", "where physical addresses are in the map of all memory", (*Session).ptov},
		{"set", "[PID|TASK | -c CPU | -p]", "the task that commands mean which name none: choose, or show; the one that died (-p)", (*Session).set},
		{"btop", "ADDRESS…", "the number of the page that a byte is in", (*Session).btop},
		{"p", "[-x|-d] EXPRESSION[:CPU,…]", "value of a C expression; of per-CPU variables on CPUs (:0, :a)", (*Session).print},
		{"list", "[-r] [-s TYPE.MEMBER,…] [-x] TYPE.MEMBER HEAD|-H HEAD|-h ELEMENT | [-o OFFSET] [-e END] START", "objects on a list, with members of each (-s); pointers from one to the next", (*Session).list},
	}
	sorting.By(c, func(a, b Command) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// Run runs one command: its name, then its arguments.
func (s *Session) Run(w io.Writer, args []string) error {
	args = habits(args)
	for _, c := range Commands() {
		if c.Name != args[0] {
			continue
		}
		err := c.run(s, w, args[1:])
		var u *Usage
		if !errors.As(err, &u) {
			return err
		}
		if why := refused(args[0], args[1:]); why != nil {
			return why
		}
		if u.Msg == "" {
			return &Usage{fmt.Sprintf("usage: %s %s", c.Name, c.Args)}
		}
		return err
	}
	if err := refused(args[0], nil); err != nil {
		return err
	}
	if name, _, _ := strings.Cut(args[0], "."); kernel.IsName(name) { // the name of a type alone is struct, as in crash
		if _, err := s.typeNamed(name); err == nil {
			return s.structure(w, args)
		}
	}
	return &Usage{fmt.Sprintf("no command %q", args[0])}
}

// habits gives the command that is meant by the other ways in which crash's users write it.
func habits(args []string) []string {
	switch name := args[0]; {
	case name == "px" || name == "pd":
		return append([]string{"p", "-" + name[1:]}, args[1:]...)
	case name == "p/x" || name == "p/d":
		return append([]string{"p", "-" + name[2:]}, args[1:]...)
	case name == "dmesg":
		return append([]string{"log"}, args[1:]...)
	case strings.HasPrefix(name, "*") && len(name) > 1:
		return append([]string{"struct", name[1:]}, args[1:]...)
	}
	return args
}

func (s *Session) allTasks() ([]walk.Task, error) {
	if !s.haveTask {
		s.haveTask = true
		for t, err := range walk.Tasks(s.t) {
			if err != nil {
				s.tasksErr = err
				break
			}
			s.tasks = append(s.tasks, t)
		}
	}
	return s.tasks, s.tasksErr
}

// find gives the tasks that an argument means: a PID, a task's address, or a name.
func (s *Session) find(arg string) ([]walk.Task, error) {
	tasks, err := s.allTasks()
	n, isNumber := number(arg)
	var out []walk.Task
	for _, t := range tasks {
		if isNumber && (uint64(t.PID) == n && !strings.HasPrefix(arg, "0x") || t.Addr == n) || !isNumber && t.Comm == arg {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, errors.Join(fmt.Errorf("no task %s", arg), err)
	}
	return out, nil
}

// crashed is the task that a CPU was running when the kernel died, by what its stack says; the first CPU's if none does.
func (s *Session) crashed() (walk.Task, unwind.Stack, error) {
	var first walk.Task
	var firstStack unwind.Stack
	err := errors.New("the dump has no running task")
	for i, cpu := range s.t.CPUs() {
		t, terr := walk.Executing(s.t, cpu)
		if terr != nil {
			continue
		}
		st := s.stack(t)
		if i == 0 || first.Addr == 0 {
			first, firstStack, err = t, st, nil
		}
		for _, f := range st.Frames {
			if dying[s.function(f)] {
				return t, st, nil
			}
		}
	}
	return first, firstStack, err
}

// dying are functions that only the CPU which found the end is in.
var dying = map[string]bool{"panic": true, "vpanic": true, "crash_kexec": true, "__crash_kexec": true, "oops_end": true, "die": true, "oops_exit": true, "make_task_dead": true, "sysrq_handle_crash": true}

func (s *Session) stack(t walk.Task) unwind.Stack { return walk.Stack(s.t, t) }

// function names the function a frame is in.
func (s *Session) function(f unwind.Frame) string {
	at := f.PC
	if f.Call {
		at-- // the call is the last instruction of the function, if it does not return
	}
	y, ok := s.t.Symbols().At(at)
	if !ok {
		return ""
	}
	return y.Name
}

// framePlace is "function+0x12 [module]" for a frame.
func (s *Session) framePlace(f unwind.Frame) string {
	at := f.PC
	if f.Call {
		at--
	}
	return s.name(at, f.PC)
}

func (s *Session) name(at, pc uint64) string {
	if pc == 0 {
		return "a call through a null pointer"
	}
	y, ok := s.t.Symbols().At(at)
	if !ok {
		return "?"
	}
	n := fmt.Sprintf("%s+%#x", y.Name, pc-y.Addr)
	if y.Module != "" {
		n += " [" + y.Module + "]"
	}
	return n
}

// sourceOf prints where in the source a frame is.
func (s *Session) sourceOf(w io.Writer, f unwind.Frame) {
	at := f.PC
	if f.Call {
		at--
	}
	if y, ok := s.t.Symbols().At(at); ok && s.lines != nil && s.always {
		for _, l := range s.lines(y.Name, y.Module, f.PC, f.PC-y.Addr, f.Call) {
			fmt.Fprintf(w, "        %s\n", l)
		}
	}
}

// sourceAt prints where in the source an address is.
func (s *Session) sourceAt(w io.Writer, function, module string, at, off uint64) {
	if s.lines == nil {
		return
	}
	for _, l := range s.lines(function, module, at, off, false) {
		fmt.Fprintf(w, "  source    %s\n", l)
	}
}

func (s *Session) printStack(w io.Writer, st unwind.Stack) {
	for i, f := range st.Frames {
		mark := ""
		if f.Scanned {
			mark = "  ? found by scanning"
		}
		fmt.Fprintf(w, "  #%-2d %016x  %s%s\n", i, f.PC, s.framePlace(f), mark)
		s.sourceOf(w, f)
		if s.frames {
			s.frameMemory(w, st.Frames, i)
		}
		if f.Regs != nil && (*f.Regs)["cs"]&3 == 0 {
			fmt.Fprintf(w, "      -- interrupted here --\n")
		}
	}
	switch st.End {
	case unwind.User:
		if n := len(st.Frames); n > 0 && st.Frames[n-1].Regs != nil {
			r := *st.Frames[n-1].Regs
			fmt.Fprintf(w, "      user mode: RIP %#x  RSP %#x  RDI %#x  RSI %#x  RDX %#x  ORIG_RAX %#x\n", r["rip"], r["rsp"], r["rdi"], r["rsi"], r["rdx"], r["orig_rax"])
		} else {
			fmt.Fprintln(w, "      in user mode")
		}
	case unwind.Released:
		fmt.Fprintf(w, "      it has exited, its stack is released\n")
	case unwind.Broken:
		fmt.Fprintf(w, "      the stack ends here: %v\n", st.Err)
	}
}

// maxFrameMemory bounds what bt -f prints of a frame.
const maxFrameMemory = 4 << 10

// frameMemory prints the stack from a frame up to the next.
func (s *Session) frameMemory(w io.Writer, frames []unwind.Frame, i int) {
	from, to := frames[i].SP, frames[i].SP+16
	if i+1 < len(frames) {
		to = frames[i+1].SP
	}
	if to <= from || to-from > maxFrameMemory { // another stack begins
		return
	}
	if err := s.words(w, s.t.ReadVirt, from, int(to-from)/8, 8, options{on: map[byte]bool{'s': true}}, nil); err != nil {
		fmt.Fprintf(w, "  %v\n", err)
	}
}
