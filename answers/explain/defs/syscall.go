package defs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/sysno"
)

// Syscall is a system call.
type Syscall struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
	Arch   string `json:"arch"`
	Args   []Arg  `json:"args"`
	// ArgsFrom is where the arguments were read: the format of an event, a source tree, or BTF; "" if nowhere.
	ArgsFrom string   `json:"args_from,omitempty"`
	ABI      ABI      `json:"abi"`
	Path     []string `json:"path"` // functions on the way in that the kernel has, the outermost first
	Event    string   `json:"event,omitempty"`
	At       *Place   `json:"at,omitempty"`
	Absent   bool     `json:"absent,omitempty"` // the kernel does not have it: it gives ENOSYS
	Probes   []Probe  `json:"probes"`
}

// Arg is an argument of a system call.
type Arg struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Register string `json:"register"`
	// User says that it points into the program's memory: the kernel copies from or to there, and never follows it by itself.
	User bool `json:"user,omitempty"`
}

// ABI is how programs of an architecture call: syscall(2), and the entry code of the kernel (arch/x86/entry/entry_64.S,
// arch/arm64/kernel/entry.S).
type ABI struct {
	Instruction string   `json:"instruction"`
	Number      string   `json:"number"` // register of the number
	Args        []string `json:"args"`   // registers
	Result      string   `json:"result"` // register; -1 to -4095 is an errno
	Lost        []string `json:"lost"`   // registers that have other contents afterwards, beside the result
	wrapper     string   // what the kernel puts before the name
	entry       []string
}

var abis = map[string]ABI{
	"amd64": {"syscall", "rax", []string{"rdi", "rsi", "rdx", "r10", "r8", "r9"}, "rax", []string{"rcx", "r11"}, "__x64_sys_",
		[]string{"entry_SYSCALL_64", "do_syscall_64", "x64_sys_call"}},
	"arm64": {"svc #0", "x8", []string{"x0", "x1", "x2", "x3", "x4", "x5"}, "x0", nil, "__arm64_sys_",
		[]string{"el0t_64_sync", "el0t_64_sync_handler", "el0_svc", "do_el0_svc", "invoke_syscall"}},
}

// Syscall tells of a system call by its name or number. The error is [ErrUnknown] if the architecture has none such.
func (s *Source) Syscall(text string) (*Syscall, error) {
	abi, ok := abis[s.Arch]
	if !ok {
		return nil, fmt.Errorf("system calls of %s: %w", s.Arch, ErrUnknown)
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, abi.wrapper), "sys_")
	nr, ok := sysno.Number(s.Arch, text)
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		nr, ok = n, sysno.Name(s.Arch, uint64(n)) != ""
	}
	if !ok {
		return nil, ErrUnknown
	}
	c := &Syscall{Name: sysno.Name(s.Arch, uint64(nr)), Number: nr, Arch: s.Arch, ABI: abi}
	inside := c.Name
	if n, ok := entries[c.Name]; ok {
		inside = n
	} else if n, ok := entries[s.Arch+" "+c.Name]; ok {
		inside = n
	}
	if s.event(inside) {
		c.Event = "syscalls:sys_enter_" + inside
	}
	if s.Tree != nil {
		c.At = defined(s.Tree, syscallPlace, inside)
	}
	s.arguments(c, inside)
	for i := range c.Args {
		if i < len(abi.Args) {
			c.Args[i].Register = abi.Args[i]
		}
	}
	s.way(c, abi, inside)
	return c, nil
}

// entries are the system calls that have another name within the kernel, which has kept older ones beside them
// (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
var entries = map[string]string{"stat": "newstat", "fstat": "newfstat", "lstat": "newlstat", "uname": "newuname", "sendfile": "sendfile64", "umount2": "umount",
	"arm64 fadvise64": "fadvise64_64"}

// event says if a system call has an event.
func (s *Source) event(inside string) bool {
	if s.Format == nil {
		return false
	}
	_, err := s.Format("syscalls", "sys_enter_"+inside)
	return err == nil
}

func (s *Source) has(function string) bool {
	if s.Symbol == nil {
		return false
	}
	_, ok := s.Symbol(function)
	return ok
}

// arguments reads the arguments where somebody says them.
func (s *Source) arguments(c *Syscall, inside string) {
	if c.At != nil {
		c.Args, c.ArgsFrom = definedArgs(c.At.text), "the source tree"
		return
	}
	if c.Event != "" {
		f, err := s.Format("syscalls", strings.TrimPrefix(c.Event, "syscalls:"))
		if err == nil {
			c.ArgsFrom = "the format of " + c.Event
			for _, x := range f.Fields {
				if !x.Common {
					c.Args = append(c.Args, Arg{Name: x.Name, Type: x.Type, User: strings.Contains(x.Type, "*")})
				}
			}
			c.Args = c.Args[min(1, len(c.Args)):] // the first is the number: __syscall_nr, or nr in old kernels
			return
		}
	}
	if s.Types == nil {
		return
	}
	for _, n := range []string{"__do_sys_" + inside, "ksys_" + inside, "__sys_" + inside, "do_sys_" + inside} {
		if f, err := s.Types.Func("vmlinux", n); err == nil {
			c.ArgsFrom = "BTF of " + n
			for _, p := range f.Params {
				_, ptr := ctype.Strip(p.Type).(*ctype.Ptr)
				c.Args = append(c.Args, Arg{Name: p.Name, Type: ctype.Name(p.Type), User: ptr})
			}
			return
		}
	}
}

// way lists the functions on the way in, and what can be attached to.
func (s *Source) way(c *Syscall, abi ABI, inside string) {
	wrapper := abi.wrapper + inside
	// The kernel has an event of each call that its table leads to, and a function also of some that it does not: of those that were
	// not built in (COND_SYSCALL), and of those that only programs of 32 bits have, as set_thread_area (kernel/trace/trace_syscalls.c).
	c.Absent = s.Symbol != nil && !s.has(wrapper) || c.Event == "" && s.event("read")
	names := slices.Clone(abi.entry)
	if !c.Absent {
		names = append(names, wrapper, "__se_sys_"+inside, "__do_sys_"+inside, "ksys_"+inside, "__sys_"+inside)
	}
	for _, n := range names {
		if s.has(n) {
			c.Path = append(c.Path, n)
		}
	}
	event := ""
	switch {
	case c.Event == "" && s.Format != nil:
		event = "the kernel has no event of it"
	case c.Event == "":
		event = "tracefs is not to be read"
	}
	c.Probes = append(c.Probes, s.probe(Tracepoint, "syscalls:sys_enter_"+inside, event), s.probe(Raw, "sys_enter", ""))
	if f, err := s.Function(wrapper); err == nil && !c.Absent {
		c.Probes = append(c.Probes, f.Probes...)
	}
}

// Assembly writes the call as a program makes it: numbers and pointers into registers, then the instruction.
func (c *Syscall) Assembly() (lines []string) {
	set, comment := "mov %s, %s", ";"
	if c.Arch == "arm64" {
		set, comment = "mov %s, %s", "//"
	}
	for _, a := range c.Args {
		lines = append(lines, fmt.Sprintf("%-24s %s %s %s", fmt.Sprintf(set, a.Register, a.Name), comment, a.Type, pointsTo(a)))
	}
	number := strconv.Itoa(c.Number)
	if c.Arch == "arm64" {
		number = "#" + number
	}
	return append(lines,
		fmt.Sprintf("%-24s %s the number of %s", fmt.Sprintf(set, c.ABI.Number, number), comment, c.Name),
		fmt.Sprintf("%-24s %s into the kernel: %s", c.ABI.Instruction, comment, strings.Join(c.Path, ", ")),
		fmt.Sprintf("%-24s %s %s is the result, or -errno from -4095 to -1", "", comment, c.ABI.Result))
}

func pointsTo(a Arg) string {
	if a.User {
		return "(an address of the program's)"
	}
	return ""
}
