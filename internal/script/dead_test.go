package script

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cdecl"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/debuginfo/orc"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// corpse is a kernel of a few tasks, made by hand.
type corpse struct {
	mem   map[uint64]byte
	types *cdecl.Scope
	syms  []kallsyms.Sym
	user  string // what lies at userText in the memory of tasks that have some
	t     *testing.T
}

const (
	corpseBase = 0xffff888000000000
	userText   = 0x400000
	userPGD    = corpseBase + 0xf000
)

// corpseTypes has of the kernel's types what walks and tests look at.
const corpseTypes = `
struct list_head { struct list_head *next, *prev; };
struct signal_struct { struct list_head thread_head; };
struct mm_struct { unsigned long total_vm; struct { struct { long counter; } count[4]; } rss_stat; void *pgd; unsigned long arg_start; };
struct fdtable { unsigned int max_fds; struct file **fd; };
struct files_struct { struct fdtable *fdt; };
struct file { const void *f_op; unsigned int f_flags; };
struct thread_info { unsigned int cpu; };
struct task_struct {
	struct thread_info thread_info; unsigned int __state; int exit_state; unsigned int flags; int on_cpu;
	struct list_head tasks, thread_node; int pid, tgid; struct task_struct *real_parent, *group_leader;
	char comm[16]; struct signal_struct *signal; struct mm_struct *mm; struct files_struct *files;
	struct cred *cred;
};
struct cred { struct { unsigned int val; } uid, gid; };
struct rq { struct task_struct *idle, *curr; };
struct bpf_iter_meta { void *seq; unsigned long session_id; unsigned long seq_num; };
struct bpf_iter__task {
	union { struct bpf_iter_meta *meta; unsigned long m; };
	union { struct task_struct *task; unsigned long t; };
};
struct bpf_iter__task_file {
	union { struct bpf_iter_meta *meta; unsigned long m; };
	union { struct task_struct *task; unsigned long t; };
	unsigned int fd;
	union { struct file *file; unsigned long f; };
};`

type noTypes struct{}

func (noTypes) ByName(ctype.Kind, string) (ctype.Type, error) { return nil, ctype.ErrNotFound }
func (noTypes) EnumValue(string) (*ctype.Enum, int64, bool)   { return nil, 0, false }
func (noTypes) Func(string, string) (*ctype.Func, error)      { return nil, ctype.ErrNotFound }

func newCorpse(t *testing.T) *corpse {
	c := &corpse{mem: map[uint64]byte{}, types: cdecl.NewScope(noTypes{}), user: "/sbin/init\x00", t: t}
	if err := c.types.Parse(corpseTypes); err != nil {
		t.Fatal(err)
	}
	swapper, rq := uint64(corpseBase+0x1000), uint64(corpseBase)
	c.syms = []kallsyms.Sym{{Addr: rq, Name: "runqueues", Type: 'D'}, {Addr: swapper, Name: "init_task", Type: 'D'}}
	c.put("struct rq", rq, "idle", swapper)
	c.put("struct rq", rq, "curr", swapper)
	c.task(swapper, 0, 0, "swapper/0", swapper)
	init := c.task(corpseBase+0x2000, 1, 1, "init", swapper)
	daemon := c.task(corpseBase+0x3000, 2, 2, "kthreadd", swapper)
	c.task(corpseBase+0x4000, 40, 40, "worker", daemon)
	c.task(corpseBase+0x5000, 7, 7, "worker", daemon)
	c.link("tasks", swapper, corpseBase+0x4000, init, daemon, corpseBase+0x5000)
	mm, files, fdt, fds := uint64(corpseBase+0x6000), uint64(corpseBase+0x6100), uint64(corpseBase+0x6200), uint64(corpseBase+0x6300)
	c.put("struct task_struct", init, "mm", mm)
	for i := range 4 {
		c.write(mm+8*uint64(1+i), 8, 0) // rss_stat
	}
	c.put("struct mm_struct", mm, "total_vm", 5)
	c.put("struct mm_struct", mm, "pgd", userPGD)
	c.put("struct mm_struct", mm, "arg_start", userText)
	c.put("struct task_struct", init, "files", files)
	c.put("struct files_struct", files, "fdt", fdt)
	c.put("struct fdtable", fdt, "max_fds", 4)
	c.put("struct fdtable", fdt, "fd", fds)
	for i, at := range []uint64{corpseBase + 0x6400, 0, corpseBase + 0x6440, 0} {
		c.write(fds+8*uint64(i), 8, at)
		if at != 0 {
			c.put("struct file", at, "f_flags", uint64(10+i))
			c.put("struct file", at, "f_op", corpseBase+0x6480) // a file has operations from the moment that it has a descriptor
		}
	}
	return c
}

// task makes a task with a process of its own.
func (c *corpse) task(at uint64, pid, tgid int, comm string, parent uint64) uint64 {
	for path, v := range map[string]uint64{"pid": uint64(pid), "tgid": uint64(tgid), "real_parent": parent, "group_leader": at, "signal": at + 0x800,
		"mm": 0, "files": 0, "flags": 0, "on_cpu": 0, "__state": 1, "exit_state": 0, "thread_info.cpu": uint64(pid % 2), "cred": at + 0x900} {
		c.put("struct task_struct", at, path, v)
	}
	c.put("struct cred", at+0x900, "uid.val", uint64(1000+pid))
	c.put("struct cred", at+0x900, "gid.val", 100)
	errs := &kernel.Errors{}
	name := kernel.Object(c, errs, "struct task_struct", at).Get("comm").Addr
	for i := range 16 {
		c.mem[name+uint64(i)] = append([]byte(comm), make([]byte, 16)...)[i]
	}
	c.put("struct signal_struct", at+0x800, "thread_head.prev", 0)
	c.link("thread_node", at)
	node := kernel.Object(c, errs, "struct task_struct", at).Get("thread_node").Addr
	c.put("struct signal_struct", at+0x800, "thread_head.next", node)
	c.write(node, 8, at+0x800)
	return at
}

// link puts tasks into a ring by a member.
func (c *corpse) link(member string, tasks ...uint64) {
	errs := &kernel.Errors{}
	node := func(i int) uint64 {
		return kernel.Object(c, errs, "struct task_struct", tasks[(i+len(tasks))%len(tasks)]).Get(member).Addr
	}
	for i := range tasks {
		c.write(node(i), 8, node(i+1))
		c.write(node(i)+8, 8, node(i-1))
	}
}

func (c *corpse) put(typ string, at uint64, path string, v uint64) {
	errs := &kernel.Errors{}
	f := kernel.Object(c, errs, typ, at)
	for name := range strings.SplitSeq(path, ".") { // Get would follow pointers
		f = f.Get(name)
	}
	if err := errs.Take(); err != nil {
		c.t.Fatal(err)
	}
	c.write(f.Addr, ctype.Size(f.Type), v)
}

func (c *corpse) write(at uint64, n int, v uint64) {
	for i, b := range binary.LittleEndian.AppendUint64(nil, v)[:n] {
		c.mem[at+uint64(i)] = b
	}
}

var errGone = errors.New("not in the dump")

func (c *corpse) ReadVirt(p []byte, addr uint64) error {
	for i := range p {
		b, ok := c.mem[addr+uint64(i)]
		if !ok {
			return &kernel.FaultError{Addr: addr, Err: errGone}
		}
		p[i] = b
	}
	return nil
}

func (c *corpse) ReadUser(p []byte, pgd, addr uint64) error {
	if pgd != userPGD || addr < userText || addr+uint64(len(p)) > userText+4096 {
		return &kernel.FaultError{Addr: addr, Err: errGone}
	}
	copy(p, (c.user + strings.Repeat("\x00", 4096))[addr-userText:])
	return nil
}

func (c *corpse) At(addr uint64) (kallsyms.Sym, bool) {
	i, found := slices.BinarySearchFunc(c.syms, addr, func(s kallsyms.Sym, a uint64) int {
		if s.Addr < a {
			return -1
		}
		return int(min(s.Addr-a, 1))
	})
	if !found {
		i--
	}
	if i < 0 {
		return kallsyms.Sym{}, false
	}
	return c.syms[i], true
}

func (c *corpse) ByName(name string) []uint64 {
	for _, s := range c.syms {
		if s.Name == name {
			return []uint64{s.Addr}
		}
	}
	return nil
}
func (c *corpse) Symbols() kernel.Symbols  { return c }
func (c *corpse) Types() ctype.Lookup      { return c.types }
func (c *corpse) Registers() []kernel.Regs { return nil }
func (c *corpse) PerCPU(int) uint64        { return 0 }
func (c *corpse) CPUs() []int              { return []int{0, 1} }
func (c *corpse) Modules() []kernel.Module { return nil }
func (c *corpse) Unwind(uint64) *orc.Table { return nil }
func (c *corpse) Caps() kernel.Caps        { return kernel.Caps{} }

// ask runs a program on a kernel; what is wrong with the program comes as text.
func ask(t *testing.T, c *corpse, text string, json bool) (out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	o := Options{On: c, Source: &syntax.Source{Name: "stdin", Text: text}, Stdout: &stdout, Stderr: &stderr, JSON: json}
	o.Diags = func(ds []syntax.Diag) { diag.Render(&stderr, ds, diag.Style{}) }
	if _, err := Run(t.Context(), o); err != nil && !errors.Is(err, ErrDiagnosed) {
		t.Errorf("%s\n%v", text, err)
	}
	return stdout.String(), stderr.String()
}

func TestDead(t *testing.T) {
	for _, tt := range []struct{ name, prog, want string }{
		{"counts by name", `iter:task { @[comm] = count(); }`, "\n\n@[init]: 1\n@[kthreadd]: 1\n@[worker]: 2\n"},
		{"in the order of numbers", `iter:task { printf("%d %d %d %s\n", tid, ppid, cpu, ctx.task.comm); }`, "1 0 1 init\n2 0 0 kthreadd\n7 2 1 worker\n40 2 0 worker\n\n\n"},
		{"begin and end", `begin { printf("%d\n", ncpus); } iter:task { @n++; } end { printf("%d\n", @n); }`, "2\n4\n\n\n@n: 4\n"},
		{"predicate and credentials", `iter:task /pid == 7/ { printf("%d %d %p\n", uid, gid, curtask); }`, "1007 100 0xffff888000005000\n\n\n"},
		{"files", `iter:task_file { printf("%s %d %d\n", comm, ctx.fd, ctx.file.f_flags); }`, "init 0 10\ninit 2 12\n\n\n"},
		{"memory of a program", `iter:task /ctx.task.mm/ { printf("%s\n", str(uptr(ctx.task.mm.arg_start))); }`, "/sbin/init\n\n\n"},
		{"symbols", `begin { printf("%s %s\n", ksym(kaddr("init_task")), ((struct task_struct *)kaddr("init_task")).comm); }`, "init_task swapper/0\n\n\n"},
		{"the number of the object", `iter:task { printf("%d ", ctx.meta.seq_num); }`, "0 1 2 3 \n\n"},
		{"two iterators in a clause", `iter:task,iter:task_file { @[probe] = count(); }`, "\n\n@[iter:task_file]: 2\n@[iter:task]: 4\n"},
		{"exit lets the walk end", `iter:task { @n++; exit(3); } end { print(1); }`, "1\n\n\n@n: 4\n"},
		{"clear while printing", `iter:task { @[tid] = 1; } end { clear(@); @[9] = 2; }`, "\n\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, errs := ask(t, newCorpse(t), tt.prog, false)
			if d := cmp.Diff(tt.want, out); d != "" || errs != "" {
				t.Errorf("%s\n%s\n%s", tt.prog, d, errs)
			}
		})
	}
	if out, _ := ask(t, newCorpse(t), `iter:task { @[comm] = count(); }`, true); out != `{"type": "map", "data": {"@": {"init": 1, "kthreadd": 1, "worker": 2}}}`+"\n" {
		t.Errorf("as JSON: %s", out)
	}
}

// TestDeadRefuses wants what a dump cannot answer to be refused at its place.
func TestDeadRefuses(t *testing.T) {
	for prog, want := range map[string]string{
		`kprobe:vfs_read { }`:           "stdin:1:1-16: ERROR: kprobe: nothing happens in a dump: programs run over its objects (iter:task, ",
		`interval:s:1 { }`:              "stdin:1:1-13: ERROR: interval: nothing happens in a dump",
		`iter:ksym { }`:                 "stdin:1:1-10: ERROR: iter:ksym cannot be walked in a dump: there are iter:task, ",
		`iter:task_vma { }`:             "iter:task_vma: this kernel has no such iterator",
		`begin { print(comm); }`:        "stdin:1:15-19: ERROR: comm has no answer here: nobody runs at begin",
		`iter:task { @ = nsecs; }`:      "stdin:1:17-22: ERROR: nsecs has no answer here: a dump's clocks stand still",
		`iter:task { print(ustack); }`:  "ustack has no answer here: user stacks",
		`iter:task { cat("/etc/x"); }`:  "cat has no answer here: it is about the machine that fathom runs on",
		`iter:task { print(comm(1)); }`: "comm(PID) is not supported",
	} {
		if out, errs := ask(t, newCorpse(t), prog, false); !strings.Contains(errs, want) || out != "" {
			t.Errorf("%s\n%s%s\nwant %s", prog, out, errs, want)
		}
	}
}

// TestDeadLoss wants to be told what could not be read.
func TestDeadLoss(t *testing.T) {
	if _, errs := ask(t, newCorpse(t), `iter:task { @ = sum(ctx.task.real_parent.real_parent.pid + *(uint64 *)kptr(0xdead)); }`, false); errs != "4 memory reads failed and gave 0 (-k shows where)\n" {
		t.Error(errs)
	}
	c := newCorpse(t)
	c.put("struct task_struct", corpseBase+0x3000, "tasks.next", 0xdead0000)
	out, errs := ask(t, c, `iter:task { printf("%d ", pid); }`, false)
	if !strings.Contains(errs, "WARNING: iter:task is not complete: walk tasks: read 0xdead") || !strings.HasPrefix(out, "1 2 ") {
		t.Errorf("%s\n%s", out, errs)
	}
}

func TestEval(t *testing.T) {
	for _, tt := range []struct{ text, want, errs string }{
		{`((struct task_struct *)0xffff888000002000)->comm`, "init\n", ""},
		{`*(struct cred *)0xffff888000002900`, "{ .uid = { .val = 1001 }, .gid = { .val = 100 } }\n", ""},
		{`(struct task_struct *)kaddr("init_task")`, "0xffff888000001000\n", ""},
		{"1, 2", "(1, 2)\n", ""},
		{`"a  b"`, "a  b\n", ""},
		{"1 +", "", "eval:1:4-4: ERROR: syntax: expected expression\n1 +\n   ~\n"},
		{"7 + nosuch", "", "eval:1:5-11: ERROR: Unknown identifier: 'nosuch'\n7 + nosuch\n    ~~~~~~\n"},
		{"*(uint32 *)16", "0\n", "eval:1:1-14: WARNING: Failed to probe_read_kernel: Bad address (-14)\n*(uint32 *)16\n~~~~~~~~~~~~~\n"},
	} {
		var out, errs bytes.Buffer
		err := Eval(newCorpse(t), tt.text, &out, &errs, func(ds []syntax.Diag) { diag.Render(&errs, ds, diag.Style{}) })
		if err != nil && !errors.Is(err, ErrDiagnosed) {
			t.Errorf("%s: %v", tt.text, err)
		}
		if d := cmp.Diff(tt.want+tt.errs, out.String()+errs.String()); d != "" {
			t.Errorf("%s\n%s", tt.text, d)
		}
	}
}
