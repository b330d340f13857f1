package cause

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/oops"
)

func explain(t *testing.T, text string) Oops {
	t.Helper()
	rs := oops.Parse([]byte(text))
	if len(rs) == 0 {
		t.Fatalf("no incident in %q", text)
	}
	return Explain(rs[0], nil)
}

const tail = "CPU: 0 PID: 12 Comm: cat Not tainted 6.1.0 #1\nRIP: 0010:bad_fn+0x10/0x20 [mod]\n"

func TestCause(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"BUG: kernel NULL pointer dereference, address: 0000000000000018\n#PF: supervisor write access in kernel mode\n" + tail,
			"bad_fn (module mod) wrote to the member at offset 0x18 of a null pointer"},
		{"BUG: kernel NULL pointer dereference, address: 0000000000000000\n#PF: supervisor read access in kernel mode\n" + tail,
			"bad_fn (module mod) read a null pointer"},
		{"BUG: kernel NULL pointer dereference, address: 0000000000000000\n#PF: supervisor instruction fetch in kernel mode\nRIP: 0010:0x0\nCall Trace:\n <TASK>\n caller+0x1/0x2\n",
			"caller called a function through a pointer that is null"},
		{"BUG: unable to handle page fault for address: 6b6b6b6b6b6b6b7b\n#PF: supervisor read access in kernel mode\n" + tail,
			"bad_fn (module mod) read 0x6b6b6b6b6b6b6b7b: freed slab memory (POISON_FREE 0x6b): used after free"},
		{"BUG: unable to handle page fault for address: ffffc90000000000\n#PF: supervisor read access in kernel mode\n#PF: error_code(0x0000) - not-present page\n" + tail,
			"bad_fn (module mod) read 0xffffc90000000000, where no page is mapped"},
		// The kernel guesses an address that is none; the operand has the right one.
		{"general protection fault, maybe for address 0xffffffffc0286080: 0000 [#1]\n" + tail + "Code: <48> 8b 40 08\nRAX: dead000000000100 RBX: 0000000000000000\n",
			"bad_fn (module mod) used 0xdead000000000108 as a pointer: the next pointer of a list entry that was deleted (LIST_POISON1): used after list_del"},
		{"general protection fault: 0000 [#1]\n" + tail, "bad_fn (module mod) did what the CPU forbids: a bad pointer, segment or instruction"},
		{"Kernel panic - not syncing: VFS: Unable to mount root fs\n", "the kernel gave up: VFS: Unable to mount root fs"},
	} {
		if d := cmp.Diff(c.want, explain(t, c.text).Cause); d != "" {
			t.Errorf("%s\n%s", c.text, d)
		}
	}
}

func TestCode(t *testing.T) {
	o := explain(t, "BUG: kernel NULL pointer dereference, address: 0000000000000028\nRIP: 0010:f+0x4/0x20\nCode: 90 90 48 8b 5f 10 <48> 8b 43 28 c3\nRAX: 0000000000000001 RBX: 0000000000000000 RCX: 0000000000000000\n")
	want := []Line{{0, "mov 0x10(%rdi),%rbx", false}, {4, "mov 0x28(%rbx),%rax", true}, {8, "retq", false}}
	if d := cmp.Diff(want, o.Code); d != "" {
		t.Error(d)
	}
	if o.Operand != "RBX=0x0, address 0x28" {
		t.Error(o.Operand)
	}
}

func TestTaint(t *testing.T) {
	got := Taint("GOE?")
	if len(got) != 2 || !strings.HasPrefix(got[0], "O: ") || !strings.HasPrefix(got[1], "E: ") {
		t.Errorf("%q", got)
	}
}
