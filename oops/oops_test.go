package oops

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// want is what a text must be read as. Texts that a comment marks "made" follow the kernel's print code, since Debian's
// kernels are built without what prints them; the others in testdata are consoles of guests.
type want struct {
	Kind     Kind
	Function string
	Module   string
	Addr     uint64
	Access   string
	PID      int
}

func of(r Report) want {
	w := r.Where()
	return want{r.Kind, w.Symbol, r.Guilty(), r.Addr, r.Access, r.PID}
}

const nullDeref = `BUG: kernel NULL pointer dereference, address: 0000000000000028
#PF: supervisor read access in kernel mode
#PF: error_code(0x0000) - not-present page
PGD 0 P4D 0
Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 1 UID: 0 PID: 187 Comm: sh Tainted: G           OE      6.12.117+deb12-cloud-amd64 #1  Debian 6.12.117-1
Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE
Hardware name: QEMU Standard PC
RIP: 0010:kboom_nullfield+0x3a/0x60 [kboom]
Code: 48 8b 40 18 <48> 8b 40 28 0f be 40 03
RSP: 0018:ffffc900001f7e00 EFLAGS: 00010246
RAX: 0000000000000000 RBX: 0000000000000000 RCX: 0000000000000000
R08: 0000000000000001 R09: 0000000000000002 R10: 0000000000000003
CR2: 0000000000000028 CR3: 0000000102a1e000 CR4: 0000000000750ef0
Call Trace:
 <TASK>
 ? __die_body.cold+0x19/0x27
 kboom_write+0x9c/0xd0 [kboom]
 proc_reg_write+0x5a/0xa0
 entry_SYSCALL_64_after_hwframe+0x76/0x7e
RIP: 0033:0x7f5c2c6ffb00
Code: 00 00 <48> 3d
RSP: 002b:00007ffd EFLAGS: 00000202 ORIG_RAX: 0000000000000001
RAX: ffffffffffffffda RBX: 000000000000000b
 </TASK>
Modules linked in: kboom(OE) veth dummy
---[ end trace 0000000000000000 ]---
Kernel panic - not syncing: Fatal exception
`

var nullWant = want{NullDeref, "kboom_nullfield", "kboom", 0x28, "read", 187}

func TestReport(t *testing.T) {
	rs := Parse([]byte(nullDeref))
	if len(rs) != 1 {
		t.Fatalf("%d reports", len(rs))
	}
	r := rs[0]
	if d := cmp.Diff(nullWant, of(r)); d != "" {
		t.Error(d)
	}
	if r.CPU != 1 || r.Tainted != "GOE" || r.Release != "6.12.117+deb12-cloud-amd64" || r.ErrorCode != "0000" || !r.Ended || r.Panic != "Fatal exception" {
		t.Errorf("%+v", r)
	}
	if len(r.Code) != 12 || r.Fault != 4 || r.Regs["RAX"] != 0 || r.Regs["R09"] != 2 || r.Regs["CR2"] != 0x28 {
		t.Errorf("code %x, fault %d, registers %v", r.Code, r.Fault, r.Regs)
	}
	if d := cmp.Diff([]Module{{"kboom", "OE"}, {"veth", ""}, {"dummy", ""}}, r.Modules); d != "" {
		t.Error(d)
	}
	if n := len(r.Stack); n != 5 || !r.Stack[0].Unsure || r.Stack[1].Module != "kboom" || !r.Stack[4].Regs || r.Stack[4].Addr != 0x7f5c2c6ffb00 {
		t.Errorf("%+v", r.Stack)
	}
}

// TestTransports reads the same text through what transports put before its lines.
func TestTransports(t *testing.T) {
	for name, prefix := range map[string]func(i int) string{
		"bare":       func(int) string { return "" },
		"dmesg":      func(i int) string { return fmt.Sprintf("[%5d.%06d] ", 12, i) },
		"raw":        func(i int) string { return fmt.Sprintf("<4>[%5d.%06d] ", 12, i) },
		"caller":     func(i int) string { return fmt.Sprintf("[%5d.%06d][  T187] ", 12, i) },
		"wallclock":  func(int) string { return "[Sat Nov 21 06:10:09 2026] " },
		"journal":    func(int) string { return "Nov 21 06:10:09 web1 kernel: " },
		"iso":        func(int) string { return "2026-11-21T06:10:09.123456+00:00 web1 kernel: [   12.345678] " },
		"netconsole": func(i int) string { return fmt.Sprintf("4,%d,12345678,-;", i) },
		"mail":       func(i int) string { return fmt.Sprintf("> > [%5d.%06d] ", 12, i) },
		"colour":     func(int) string { return "\x1b[0;32m[   12.345678] \x1b[0m" },
	} {
		for _, end := range []string{"\n", "\r\n"} {
			var b strings.Builder
			i := 0
			for line := range strings.Lines(nullDeref) {
				b.WriteString(prefix(i) + strings.TrimSuffix(line, "\n") + end)
				i++
			}
			rs := Parse([]byte(b.String()))
			if len(rs) != 1 || len(rs[0].Stack) != 5 || rs[0].Regs["R09"] != 2 {
				t.Errorf("%s: %d reports: %+v", name, len(rs), rs)
				continue
			}
			if d := cmp.Diff(nullWant, of(rs[0])); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
}

// TestInterleaved tells two CPUs apart that write at once, where the kernel prints who writes.
func TestInterleaved(t *testing.T) {
	other := strings.NewReplacer("kboom_nullfield", "other_fn", "PID: 187", "PID: 99", "0000000000000028", "0000000000000030").Replace(nullDeref)
	a, b := strings.SplitAfter(nullDeref, "\n"), strings.SplitAfter(other, "\n")
	var text strings.Builder
	for i := range a[:len(a)-1] {
		fmt.Fprintf(&text, "[   12.000000][  T187] %s[   12.000001][   T99] %s", a[i], b[i])
	}
	rs := Parse([]byte(text.String()))
	if len(rs) != 2 {
		t.Fatalf("%d reports", len(rs))
	}
	if d := cmp.Diff([]want{nullWant, {NullDeref, "other_fn", "kboom", 0x30, "read", 99}}, []want{of(rs[0]), of(rs[1])}); d != "" {
		t.Error(d)
	}
}

// TestMade reads texts that follow the kernel's print code.
func TestMade(t *testing.T) {
	trace := "CPU: 0 PID: 12 Comm: cat Not tainted 6.1.0 #1\nCall Trace:\n <TASK>\n %s+0x10/0x20\n caller_fn+0x1/0x2\n </TASK>\n"
	for _, c := range []struct {
		text string
		want want
	}{
		{"general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] PREEMPT SMP\nCPU: 0 PID: 12 Comm: cat Not tainted 6.1.0 #1\nRIP: 0010:f+0x1/0x2\n",
			want{GPF, "f", "", 0xdead000000000100, "", 12}},
		{"BUG: unable to handle page fault for address: 0000000000400000\n#PF: supervisor read access in kernel mode\n#PF: error_code(0x0001) - permissions violation\nOops: 0001 [#1]\nCPU: 0 PID: 12 Comm: cat Not tainted 6.1.0 #1\nRIP: 0010:f+0x1/0x2\n",
			want{UserAccess, "f", "", 0x400000, "read", 12}},
		{"BUG: KASAN: slab-use-after-free in bad_fn+0x12/0x34 [mod]\nRead of size 8 at addr ffff888012345678 by task cat/12\n\n" + fmt.Sprintf(trace, "kasan_report"),
			want{KASAN, "bad_fn", "mod", 0xffff888012345678, "read", 12}},
		{"UBSAN: array-index-out-of-bounds in drivers/x.c:12:3\nindex 4 is out of range for type 'int [4]'\n" + fmt.Sprintf(trace, "ubsan_epilogue"),
			want{UBSAN, "caller_fn", "", 0, "", 12}},
		{"WARNING: possible circular locking dependency detected\n6.1.0 #1 Not tainted\ncat/12 is trying to acquire lock:\n" + fmt.Sprintf(trace, "print_circular_bug"),
			want{Lockdep, "caller_fn", "", 0, "", 12}},
		{"watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [sh:187]\nModules linked in: kboom(OE)\nCPU: 1 PID: 187 Comm: sh Not tainted 6.1.0 #1\nRIP: 0010:kboom_softlock+0x9/0x10 [kboom]\n",
			want{SoftLockup, "kboom_softlock", "kboom", 0, "", 187}},
		{"INFO: task sh:185 blocked for more than 120 seconds.\n      Not tainted 6.1.0 #1\n\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\" disables this message.\ntask:sh              state:D stack:0     pid:185   ppid:1      flags:0x00004000\nCall Trace:\n <TASK>\n __schedule+0x1/0x2\n schedule+0x1/0x2\n kboom_hung+0x1/0x2 [kboom]\n </TASK>\n",
			want{HungTask, "kboom_hung", "kboom", 0, "", 185}},
		{"rcu: INFO: rcu_preempt self-detected stall on CPU\nrcu: \t1-....: (5249 ticks this GP)\nCPU: 1 PID: 12 Comm: sh Not tainted 6.1.0 #1\nRIP: 0010:spin_fn+0x9/0x10\n",
			want{RCUStall, "spin_fn", "", 0, "", 12}},
		{"BUG: TASK stack guard page was hit at 00000000abcdef00 (stack is 00000000abcd0000..00000000abcd4000)\nstack guard page: 0000 [#1] PREEMPT SMP\nCPU: 1 PID: 12 Comm: sh Not tainted 6.1.0 #1\nRIP: 0010:deep+0x9/0x10\n",
			want{StackGuard, "deep", "", 0xabcdef00, "", 12}},
		{"kthreadd invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0\nCPU: 0 PID: 12 Comm: cat Not tainted 6.1.0 #1\nCall Trace:\n <TASK>\n dump_header+0x1/0x2\n alloc_pages+0x1/0x2\n </TASK>\n",
			want{OOM, "alloc_pages", "", 0, "", 12}},
		{"Unable to handle kernel NULL pointer dereference at virtual address 0000000000000018\nMem abort info:\n  ESR = 0x0000000096000004\nInternal error: Oops: 0000000096000004 [#1] SMP\nCPU: 1 PID: 12 Comm: sh Not tainted 6.1.0 #1\npc : bad_fn+0x20/0x40 [mod]\nlr : caller_fn+0x18/0x30\nsp : ffff800008003c00\nx29: ffff800008003c00 x28: 0000000000000000\nCall trace:\n bad_fn+0x20/0x40 [mod]\n caller_fn+0x18/0x30\nCode: f9400000 910003fd (f9400c00) d65f03c0\n",
			want{NullDeref, "bad_fn", "mod", 0x18, "", 12}},
		{"mce: [Hardware Error]: CPU 2: Machine Check Exception: 5 Bank 4: b200000000070f0f\n", want{MachineCheck, "", "", 0, "", -1}},
		{"NMI watchdog: Watchdog detected hard LOCKUP on cpu 3\nCPU: 3 PID: 12 Comm: sh Not tainted 6.1.0 #1\nRIP: 0010:stuck+0x1/0x2\n", want{HardLockup, "stuck", "", 0, "", 12}},
	} {
		rs := Parse([]byte("something before\n" + c.text))
		if len(rs) != 1 {
			t.Errorf("%q: %d reports", c.text[:40], len(rs))
			continue
		}
		if d := cmp.Diff(c.want, of(rs[0])); d != "" {
			t.Errorf("%q: %s", c.text[:40], d)
		}
	}
}

// TestConsoles reads consoles of guests that died; the first line of a file says what of.
func TestConsoles(t *testing.T) {
	files, err := filepath.Glob("testdata/debian-*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no consoles")
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		head, text, _ := strings.Cut(string(b), "\n")
		rs := Parse([]byte(text))
		if len(rs) == 0 {
			t.Errorf("%s: nothing found", f)
			continue
		}
		w := of(rs[0])
		if got := fmt.Sprintf("# %s | %s | %s | %#x | %s", w.Kind, w.Function, w.Module, w.Addr, w.Access); got != head {
			t.Errorf("%s:\n got %s\nwant %s", f, got, head)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(nullDeref))
	f.Add([]byte("INFO: task sh:185 blocked for more than 120 seconds.\n <IRQ>\n f+0x1/0x2 [m]\n"))
	f.Add([]byte("[ 1.000000][ T1] kernel BUG at a.c:1!\ninvalid opcode: 0000 [#1]\nCode: <0f> 0b\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, r := range Parse(b) {
			r.Guilty()
			r.Where()
		}
	})
}

func ExampleParse() {
	for _, r := range Parse([]byte(nullDeref)) {
		fmt.Println(r.Kind, r.Where().Symbol, r.Guilty())
	}
	// Output: null pointer dereference kboom_nullfield kboom
}
