package dump_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/btftypes"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/unwind"
	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/lab/guest"
)

// envDebuginfo, set to anything, lets tests get a kernel's debug information: 300 MB to download, 340 MB in the cache.
const envDebuginfo = "FATHOM_DEBUGINFO"

// envDrgn is a folder with a newer drgn than Debian's, built in place ("setup.py build_ext -i"). It opens the dumps of QEMU without
// page tables too, and knows the unwind tables of 6.12.
const envDrgn = "FATHOM_DRGN"

// vmlinux is a kernel with debug information.
func vmlinux(t *testing.T, kernel string, modules ...string) string {
	t.Helper()
	if os.Getenv(envDebuginfo) == "" {
		t.Skip(envDebuginfo + " is not set")
	}
	cache, err := guest.UserCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := cache.Find(t.Context(), kernel, "")
	if err != nil {
		t.Fatal(err)
	}
	name, err := cache.Vmlinux(t.Context(), k, modules...)
	if err != nil {
		ktest.Missing(t, err.Error())
	}
	return name
}

// drgnSays is what testdata/with_drgn.py writes.
type drgnSays struct {
	Tasks   map[int][3]any             // name, TGID, PPID
	Stacks  map[int]json.RawMessage    // [pc…], or an error as text
	Symbols map[string][2]string       // name, address
	Structs map[string]json.RawMessage // [size, [[name, bit offset, bits]…]]
}

// TestDrgn compares tasks, stacks, symbols and layouts with what drgn finds with debug information, on the dumps that
// drgn opens: with page tables and a kernel's own, and with a newer one those without and of the older kernel.
func TestDrgn(t *testing.T) {
	vmlinux(t, kernels[0])
	c := killGuest(t, kernels[0])
	for name, path := range map[string]string{"paging": c.path("elf-paging"), "kexec": kexecGuest(t, kernels[0])} {
		t.Run(name, func(t *testing.T) { compareDrgn(t, kernels[0], path) })
	}
	if os.Getenv(envDrgn) == "" {
		return
	}
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			c := killGuest(t, k)
			compareDrgn(t, k, c.path("elf"))
		})
	}
}

// compareDrgn compares a dump of a kernel with what drgn finds in it.
func compareDrgn(t *testing.T, kernel, path string) {
	d := open(t, path)
	types := typesOf(t, d)
	syms, structs := sample(d, types)
	says := askDrgn(t, path, vmlinux(t, kernel), syms, structs)
	drgnTasks(t, d, says)
	drgnSymbols(t, d, syms, says)
	drgnStructs(t, btftypes.New(types, nil), structs, says)
}

// typesOf reads the kernel's own types.
func typesOf(t *testing.T, d *dump.Dump) *btftypes.BTF {
	t.Helper()
	start, stop := d.Kallsyms().ByName("__start_BTF")[0], d.Kallsyms().ByName("__stop_BTF")[0]
	raw := make([]byte, stop-start)
	err := d.ReadVirt(raw, start)
	if err != nil {
		t.Fatal(err)
	}
	types, err := btftypes.Parse(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	return types
}

// sample draws symbols and structs.
func sample(d *dump.Dump, types *btftypes.BTF) (syms []kallsyms.Sym, structs []string) {
	rng := rand.New(rand.NewPCG(7, 8))
	for s := range d.Kallsyms().All() {
		if s.Module == "" && rng.IntN(40) == 0 && s.Addr >= 0xffffffff80000000 {
			syms = append(syms, s)
		}
	}
	names := types.Names(ctype.KindStruct, "")
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = slices.DeleteFunc(names[:min(len(names), 1500)], func(s string) bool { return s == "" })
	return syms, append(names, "task_struct", "sk_buff", "net_device", "page", "mm_struct", "inode")
}

func askDrgn(t *testing.T, core, vmlinux string, syms []kallsyms.Sym, structs []string) (says drgnSays) {
	t.Helper()
	var in, out, errs bytes.Buffer
	for _, s := range syms {
		fmt.Fprintf(&in, "%x\n", s.Addr)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/with_drgn.py", core, vmlinux, strings.Join(structs, ","))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &errs
	if dir := os.Getenv(envDrgn); dir != "" {
		cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
	}
	if err := cmd.Run(); err != nil {
		ktest.Missing(t, fmt.Sprintf("drgn: %v\n%s", err, errs.String()))
	}
	if err := json.Unmarshal(out.Bytes(), &says); err != nil {
		t.Fatal(err)
	}
	return says
}

func drgnTasks(t *testing.T, d *dump.Dump, says drgnSays) {
	want, got := map[int]string{}, map[int]string{}
	for tid, a := range says.Tasks {
		want[tid] = fmt.Sprint(a[0], " ", a[1], " ", a[2])
	}
	whole, ours, theirs, failed, released := 0, 0, 0, 0, 0
	for task, err := range walk.Tasks(d) {
		if err != nil {
			t.Fatal(err)
		}
		if task.PID == 0 {
			continue // drgn does not list the idle tasks
		}
		got[task.PID] = fmt.Sprint(task.Comm, " ", task.TGID, " ", task.PPID)
		var frames []uint64
		if json.Unmarshal(says.Stacks[task.PID], &frames) != nil || len(frames) > 0 && frames[0] == 0 {
			failed++ // "unknown ORC entry type": this drgn is older than the kernel. 0: it takes QEMU's registers for another task's
			continue
		}
		if _, runs := walk.Running(d, task); !runs && slices.ContainsFunc(d.Registers(), func(r kernel.Regs) bool { return len(frames) > 0 && r["rip"] == frames[0] }) {
			failed++ // QEMU numbers its CPUs from 1 on where a process is named: drgn takes them for the processes 1 and 2
			continue
		}
		stack := walk.Stack(d, task)
		if stack.End == unwind.Released {
			released++ // drgn follows what thread.sp was: the memory is free, or another's
			continue
		}
		mine := addresses(stack)
		yours := distinct(frames)
		if i := slices.IndexFunc(yours, func(pc uint64) bool { y, ok := d.Kallsyms().At(pc - 1); return !ok || !y.IsText() }); i >= 0 {
			yours = yours[:i] // behind a frame of a module, which it has no tables for, it makes frames up
		}
		ours, theirs = ours+len(mine), theirs+len(yours)
		// drgn ends where its tables end; what it found must be what we found, from the first frame on.
		if len(yours) > len(mine) || !slices.Equal(yours, mine[:len(yours)]) {
			t.Errorf("pid %d %s:\nours   %x\ndrgn's %x", task.PID, task.Comm, mine, yours)
			continue
		}
		whole++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	t.Logf("%d tasks; %d stacks alike, %d frames of ours, %d of drgn's; it gave up on %d; %d are released", len(got), whole, ours, theirs, failed, released)
	if whole < 40 || ours < theirs {
		t.Errorf("%d stacks alike", whole)
	}
}

func addresses(stack unwind.Stack) (pcs []uint64) {
	for _, f := range stack.Frames {
		pcs = append(pcs, f.PC)
	}
	return pcs
}

// distinct leaves out the frames of inlined functions, which have the address of the one around them.
func distinct(frames []uint64) (pcs []uint64) {
	for _, pc := range frames {
		if len(pcs) == 0 || pcs[len(pcs)-1] != pc {
			pcs = append(pcs, pc)
		}
	}
	return pcs
}

func drgnSymbols(t *testing.T, d *dump.Dump, syms []kallsyms.Sym, says drgnSays) {
	n, wrong := 0, 0
	for _, s := range syms {
		a, ok := says.Symbols[fmt.Sprintf("%x", s.Addr)]
		if !ok {
			continue // drgn knows symbols that have a size
		}
		n++
		name := a[0]
		if !slices.Contains(d.Kallsyms().ByName(name), s.Addr) && a[1] == fmt.Sprintf("%x", s.Addr) {
			if wrong++; wrong < 5 {
				t.Errorf("%x is %s, not %s", s.Addr, s.Name, name)
			}
		}
	}
	t.Logf("%d symbols, %d wrong", n, wrong)
	if n < 1000 {
		t.Errorf("drgn named %d of %d symbols", n, len(syms))
	}
}

func drgnStructs(t *testing.T, types *btftypes.Lookup, names []string, says drgnSays) {
	n, members := 0, 0
	for _, name := range names {
		raw, ok := says.Structs[name]
		if !ok {
			continue
		}
		all := types.AllByName(ctype.KindStruct, name)
		n++
		found := false
		var last string
		for _, ty := range all { // several files may have each its own struct of a name
			s, ok := ty.(*ctype.Struct)
			if !ok {
				continue
			}
			var ms [][3]any
			for _, m := range s.Members() {
				ms = append(ms, [3]any{m.Name, m.BitOff, m.BitSize})
			}
			if ms == nil {
				ms = [][3]any{}
			}
			b, _ := json.Marshal([2]any{s.Size, ms})
			last = string(b)
			found = found || equalJSON(b, raw)
			members += len(ms)
		}
		if !found {
			t.Errorf("struct %s is\n%s, drgn says\n%s", name, last, raw)
		}
	}
	t.Logf("%d structs, %d members", n, members)
	if n < 500 {
		t.Errorf("%d structs", n)
	}
}

func equalJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && x.String() == y.String()
}
