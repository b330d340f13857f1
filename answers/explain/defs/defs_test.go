package defs

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/traceevent"
)

func TestDeclare(t *testing.T) {
	i, c := &ctype.Int{Name: "int", Size: 4, Signed: true}, &ctype.Int{Name: "char", Size: 1}
	file := &ctype.Struct{Name: "file"}
	for want, typ := range map[string]ctype.Type{
		"int x":                       i,
		"char x[16]":                  &ctype.Array{Elem: c, Len: 16},
		"char x[]":                    &ctype.Array{Elem: c},
		"int x[2][3]":                 &ctype.Array{Elem: &ctype.Array{Elem: i, Len: 3}, Len: 2},
		"struct file **x":             &ctype.Ptr{Elem: &ctype.Ptr{Elem: file}},
		"char *__user x":              &ctype.Ptr{Elem: c, Tags: []string{"user"}},
		"int (*x)[4]":                 &ctype.Ptr{Elem: &ctype.Array{Elem: i, Len: 4}},
		"int (*x[2])(struct file *f)": &ctype.Array{Len: 2, Elem: &ctype.Ptr{Elem: &ctype.Func{Result: i, Params: []ctype.Param{{Name: "f", Type: &ctype.Ptr{Elem: file}}}}}},
		"void x(void)":                &ctype.Func{Result: ctype.Void{}},
	} {
		if got := Declare(typ, "x"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// tree is a piece of a source tree, in the kernel's ways to write definitions.
var tree = fstest.MapFS{
	"include/linux/foo.h": {Data: []byte("struct foo;\nint foo_open(struct foo *f);\n\nstruct foo {\n\tint a;\n};\n")},
	"fs/foo.c": {Data: []byte("#include <linux/foo.h>\n\nstatic int calls(void)\n{\n\treturn foo_open(NULL);\n}\n\n" +
		"int foo_open(struct foo *f)\n{\n\treturn 0;\n}\n\nSYSCALL_DEFINE3(read, unsigned int, fd, char __user *, buf,\n\t\tsize_t, count)\n{\n\treturn 0;\n}\n")},
	"mm/bar.c": {Data: []byte("SYSCALL_DEFINE2(\n\tumount, char __user *, name,\n\tint, flags)\n{\n}\nstatic noinline void __sched\nbar_wait(struct bar *b,\n\t int n)\n\t__releases(b)\n{\n}\n")},
}

func TestTree(t *testing.T) {
	for _, c := range []struct {
		find finder
		name string
		want string
	}{
		{structPlace, "foo", "include/linux/foo.h:4"}, {functionPlace, "foo_open", "fs/foo.c:8"}, {functionPlace, "calls", "fs/foo.c:3"},
		{syscallPlace, "read", "fs/foo.c:13"}, {syscallPlace, "umount", "mm/bar.c:1"}, {syscallPlace, "rea", ""}, {functionPlace, "fo", ""}, {structPlace, "bar", ""},
	} {
		if got := defined(tree, c.find, c.name).String(); got != c.want {
			t.Errorf("%s is at %q, want %q", c.name, got, c.want)
		}
	}
}

// known is a kernel with two system calls and a few functions.
func known() *Source {
	has := map[string]string{"entry_SYSCALL_64": "", "do_syscall_64": "", "__x64_sys_read": "", "ksys_read": "", "__x64_sys_umount": "", "__x64_sys_uselib": "", "nf_hook": "nf_tables"}
	return &Source{
		Arch:   "amd64",
		Symbol: func(n string) (string, bool) { m, ok := has[n]; return m, ok },
		Parts:  func(n string) []string { return map[string][]string{"gone": {"gone.isra.0"}}[n] },
		Format: func(system, name string) (*traceevent.Format, error) {
			if name == "sys_enter_umount" {
				return &traceevent.Format{Name: name, Fields: []traceevent.Field{{Name: "__syscall_nr", Type: "int", Offset: 8}}}, nil
			} else if name != "sys_enter_read" {
				return nil, fs.ErrNotExist
			}
			return &traceevent.Format{Name: name, Fields: []traceevent.Field{{Name: "common_pid", Type: "int", Common: true}, {Name: "__syscall_nr", Type: "int", Offset: 8},
				{Name: "fd", Type: "unsigned int", Offset: 16, Size: 8}, {Name: "buf", Type: "char *", Offset: 24, Size: 8}, {Name: "count", Type: "size_t", Offset: 32, Size: 8}}}, nil
		},
		Against: func(n string) (string, []string, bool) {
			if n == "gone" {
				return "gone exists only as the compiler changed it", []string{"gone.isra.0"}, true
			}
			return "", nil, false
		},
		Works: func(w Way) error {
			if w == Kprobe {
				return errors.New("kprobes are not built in")
			}
			return nil
		},
		Tree: tree,
	}
}

func TestSyscall(t *testing.T) {
	s := known()
	s.Tree = nil
	c, err := s.Syscall("__x64_sys_read")
	if err != nil {
		t.Fatal(err)
	}
	want := []Arg{{"fd", "unsigned int", "rdi", false}, {"buf", "char *", "rsi", true}, {"count", "size_t", "rdx", false}}
	if diff := cmp.Diff(want, c.Args); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"entry_SYSCALL_64", "do_syscall_64", "__x64_sys_read", "ksys_read"}, c.Path); diff != "" {
		t.Error(diff)
	}
	var b strings.Builder
	if err := c.Text(&b, true); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{
		"read(unsigned int fd, char __user *buf, size_t count), system call 0 of amd64\n",
		"  registers  rax = 0, rdi = fd, rsi = buf, rdx = count; syscall; rax = result or -errno; rcx and r11 lost\n",
		"  mov rax, 0               ; the number of read\n",
		"  kprobe:__x64_sys_read\n    here     no, kprobes are not built in\n",
		"  fentry:__x64_sys_read\n    here     no, its prototype is not in BTF\n",
	} {
		if !strings.Contains(b.String(), l) {
			t.Errorf("there is no %q in\n%s", l, b.String())
		}
	}
	// Of a tree the marks of the source are kept, and older names are known.
	c, err = known().Syscall("166")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Arg{{"name", "char *", "rdi", true}, {"flags", "int", "rsi", false}}, c.Args); diff != "" || c.At.String() != "mm/bar.c:1" || c.Absent {
		t.Errorf("%s%v, absent %t", diff, c.At, c.Absent)
	}
	if c, err = known().Syscall("create_module"); err != nil || !c.Absent {
		t.Errorf("%+v, %v", c, err)
	}
	// A function that stands for what was not built in leads nowhere.
	if c, err = known().Syscall("uselib"); err != nil || !c.Absent || slices.Contains(c.Path, "__x64_sys_uselib") {
		t.Errorf("%+v, %v", c, err)
	}
	for _, n := range []string{"nosuch", "-1", "99999", ""} {
		if _, err := known().Syscall(n); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", n, err)
		}
	}
	arm := known()
	arm.Arch = "arm64"
	if c, err = arm.Syscall("read"); err != nil || c.Number != 63 || c.Args[1].Register != "x1" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestProbes(t *testing.T) {
	s := known()
	s.Tree = nil
	for name, want := range map[string]string{"sys_read": "tracepoint:syscalls:sys_enter_read rawtracepoint:sys_enter fentry:__x64_sys_read kprobe:__x64_sys_read",
		"kprobe:nf_hook": "fentry:nf_hook kprobe:nf_hook", "tracepoint:syscalls:sys_enter_read": "tracepoint:syscalls:sys_enter_read rawtracepoint:sys_enter_read"} {
		c, err := s.Probes(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, p := range c.Probes {
			got = append(got, p.Spec)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, " "), want)
		}
	}
	if _, err := s.Probes("nosuch"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestFunction(t *testing.T) {
	f, err := known().Function("nf_hook")
	if err != nil || f.Module != "nf_tables" || f.Probes[1].Why != "kprobes are not built in" {
		t.Errorf("%+v, %v", f, err)
	}
	f, err = known().Function("gone")
	if err != nil || len(f.Parts) != 1 || f.Probes[0].Here != "no" || f.Probes[0].Why != f.Against || f.Probes[1].Why != f.Against {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err = known().Function("nowhere"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestErrno(t *testing.T) {
	for text, want := range map[string]string{"105": "ENOBUFS", "-22": "EINVAL", "ENOENT": "ENOENT", "517": "EPROBE_DEFER", "ERESTARTSYS": "ERESTARTSYS",
		"EWOULDBLOCK": "EAGAIN", "0": "", "4096": "", "ENOSUCH": "", "": ""} {
		if e, ok := NewErrno(text); e.Name != want || ok != (want != "") {
			t.Errorf("%q: %+v %t, want %q", text, e, ok, want)
		}
	}
}

// reasons is a kernel with one enum.
type reasons struct{ ctype.Lookup }

func (reasons) ByName(k ctype.Kind, name string) (ctype.Type, error) {
	if k != ctype.KindEnum || name != dropEnum {
		return nil, ctype.ErrNotFound
	}
	return &ctype.Enum{Name: name, Size: 4, Values: []ctype.EnumValue{{Name: "SKB_NOT_DROPPED_YET"}, {Name: "SKB_DROP_REASON_NO_SOCKET", Value: 3}, {Name: "SKB_DROP_REASON_BRANDNEW", Value: 9}}}, nil
}

func TestDrop(t *testing.T) {
	s := &Source{Types: reasons{}}
	for text, want := range map[string]Drop{"3": {"NO_SOCKET", 3, dropWords["NO_SOCKET"]}, "NO_SOCKET": {"NO_SOCKET", 3, dropWords["NO_SOCKET"]},
		"SKB_DROP_REASON_BRANDNEW": {"BRANDNEW", 9, ""}, "XDP": {"XDP", -1, dropWords["XDP"]}, "NOT_DROPPED_YET": {"NOT_DROPPED_YET", 0, dropWords["NOT_DROPPED_YET"]}} {
		if d, err := s.Drop(text); err != nil || *d != want {
			t.Errorf("%s: %+v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "4", "NOSUCH"} {
		if d, err := s.Drop(text); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %+v, %v", text, d, err)
		}
	}
}
