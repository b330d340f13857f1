package record

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/modules"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/skeleton"
	"github.com/fathom-trace/fathom/tracefs"
)

// newEventModule is the module of an event that was made, with a field of each kind.
const newEventModule = "/every.ko"

// newEventFiles builds that module for a kernel, and adds babeltrace2.
func newEventFiles(t *testing.T, kernel string, c *ktest.Config) {
	e, err := skeleton.Parse("lab:every", []string{
		"enum { LOST = -1, FOUND, KEPT = 7 } state", "flags { READ = 1, WRITE = 2, EXEC = 1 << 31 } mode", "u64 addr %#x", "char comm[16]",
		"string path", "u32 lengths[]", "u16 ports[3]", "u8 mac[6] %pM", "void *where %pS", "struct sk_buff *skb", "bool last",
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range e.Files() {
		if err := os.WriteFile(filepath.Join(dir, f.Name), []byte(f.Text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := guest.UserCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := cache.Find(t.Context(), kernel, "")
	if err != nil {
		t.Fatal(err)
	}
	headers, err := cache.BuildDir(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	kos, err := modules.BuildDir(t.Context(), headers, dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Files = append(c.Files, guest.File{Name: newEventModule, Path: kos[0]})
	c.Files = append(c.Files, withLibraries("/usr/bin/babeltrace2")...)
	plugins, _ := filepath.Glob("/usr/lib/*/babeltrace2/plugins/*.so")
	for _, p := range plugins {
		c.Files = append(c.Files, guest.File{Name: p, Path: p})
	}
}

// TestNewEvent loads the module of an event that was made, records what it fires, and compares with what it gave: the text of
// view, the text of the kernel, and babeltrace2's values.
func TestNewEvent(t *testing.T) {
	ktest.NeedGuest(t, ktest.Tracefs, ktest.Tracepoint, ktest.Modules)
	f, err := os.Open(newEventModule)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.DeleteModule("every", 0); err != nil {
			t.Error(err)
		}
	})
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	inst, err := fs.NewInstance(leases(t))
	if err != nil {
		t.Fatal(err)
	}
	defer inst.Close()
	for _, set := range [][2]string{{"events/lab/every/enable", "1"}, {"tracing_on", "1"}} {
		if err := inst.Write(set[0], set[1]); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "r")
	r, err := Start(Options{Dir: dir, Leases: leases(t), Symbol: symbols(t), Events: []Spec{{Pattern: "lab:every"}}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 12
	fire := exec.Command("/proc/self/exe")
	fire.Env = append(os.Environ(), fmt.Sprintf("%s=%d", fireEnv, n))
	if out, err := fire.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	acc, err := r.Stop()
	if err != nil || acc.Events != n || !acc.Exact {
		t.Fatalf("%+v, %v", acc, err)
	}
	kernel, err := inst.Read("trace")
	if err != nil {
		t.Fatal(err)
	}
	var theirs []string
	for l := range strings.Lines(string(kernel)) {
		if _, text, ok := strings.Cut(l, ": every: "); ok {
			theirs = append(theirs, strings.TrimSpace(text))
		}
	}
	tr, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	i := 0
	for e := range traceevent.All(tr.Events()) {
		got := strings.TrimSpace(string(traceevent.NewPrinter(e.Format).Append(nil, e.Rec, &tr.Env)))
		if want := gaveText(i); !strings.HasPrefix(got, want[0]) || !strings.HasSuffix(got, want[1]) {
			t.Errorf("event %d is\n%s, not\n%s…%s", i, got, want[0], want[1])
		}
		if i < len(theirs) && theirs[i] != got {
			t.Errorf("event %d is\n%s, and for the kernel\n%s", i, got, theirs[i])
		}
		i++
	}
	if i != n || len(theirs) != n {
		t.Errorf("%d events, %d of the kernel's, of %d", i, len(theirs), n)
	}
	program, err := exec.LookPath("/usr/bin/babeltrace2")
	if err != nil {
		ktest.Missing(t, "no babeltrace2")
	}
	out, err := exec.Command(program, dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, l := range lines {
		if want := gaveValues(i); !strings.Contains(l, "lab:every:") || !strings.Contains(l, want) {
			t.Errorf("babeltrace2: event %d is\n%s, not\n%s", i, l, want)
		}
	}
	if len(lines) != n {
		t.Errorf("babeltrace2 has %d events of %d", len(lines), n)
	}
}

// What the module gives the i-th time: numbers of the enum, and of the flags one and the next.
var (
	gaveState = []int{-1, 0, 7}
	gaveNames = []string{"LOST", "FOUND", "KEPT"}
	gaveMode  = []uint32{1 | 2, 2 | 1<<31, 1<<31 | 1}
	gaveFlags = []string{"READ|WRITE", "WRITE|EXEC", "READ|EXEC"}
)

// gaveText is how a line shows the i-th event, up to a symbol's size, and behind it.
func gaveText(i int) [2]string {
	var lengths []string
	for j := range i % 5 {
		lengths = append(lengths, fmt.Sprintf("%#x", i+j))
	}
	return [2]string{
		fmt.Sprintf("state=%s mode=%s addr=%#x comm=comm-%d path=path-%d lengths={%s} ports={%#x,%#x,%#x} mac=%02x:%02x:%02x:%02x:%02x:%02x where=every_fire+0x0/0x",
			gaveNames[i%3], gaveFlags[i%3], i*10+3, i, i, strings.Join(lengths, ","), i, i+1, i+2, i, i+1, i+2, i+3, i+4, i+5),
		fmt.Sprintf(" [every] skb=0000000000000000 last=%d", i%2),
	}
}

// gaveValues is how babeltrace2 shows its fields, up to an address. The length of what has none of its own is a field before it.
func gaveValues(i int) string {
	list := func(n int) string {
		var b strings.Builder
		for j := range n {
			fmt.Fprintf(&b, "[%d] = %d, ", j, i+j)
		}
		return "[ " + strings.TrimSuffix(b.String(), ", ") + " ]"
	}
	path := fmt.Sprintf("path-%d", i)
	v := fmt.Sprintf("state = %d, mode = %d, addr = %d, comm = \"comm-%d\", _path_length = %d, path = %q, _lengths_length = %d, lengths = %s, ports = %s, mac = %s, where = ",
		gaveState[i%3], gaveMode[i%3], i*10+3, i, len(path)+1, path, i%5, list(i%5), list(3), list(6))
	return strings.ReplaceAll(v, "[  ]", "[ ]")
}
