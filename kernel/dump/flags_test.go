package dump_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/kernel/dump"
)

// checkFlags tries the flags that crash's users know against what the guest said, or against each other.
func checkFlags(t *testing.T, c corpse, d *dump.Dump, run func(string) string) {
	lines := func(s string) []string { return strings.Split(strings.TrimRight(s, "\n"), "\n") }
	if got, want := run("rd -a linux_banner"), strings.TrimSpace(c.said["/proc/version"]); !strings.Contains(got, want) {
		t.Errorf("rd -a linux_banner: %s, not %s", got, want)
	}
	at := strings.Fields(run("sym linux_banner"))[0]
	text := strings.Fields(run("rd -8 -x 0x" + at + " 5"))[1:]
	if got := strings.Join(text, " "); got != "4c 69 6e 75 78" { // Linux
		t.Errorf("rd -8: %s", got)
	}
	if phys, err := d.Translate(d.Kallsyms().ByName("linux_banner")[0]); err != nil || !strings.Contains(run(fmt.Sprintf("rd -p -8 %#x 5", phys)), "Linux") {
		t.Errorf("rd -p %#x: %v", phys, err)
	}
	want := 0
	for line := range strings.Lines(c.said["/proc/kallsyms"]) {
		if strings.HasSuffix(line, "\t[veth]\n") {
			want++
		}
	}
	if got := len(lines(run("sym -m veth"))); got != want {
		t.Errorf("sym -m veth has %d symbols, /proc/kallsyms %d", got, want)
	}
	for name, line := range c.said {
		pid, ok := strings.CutSuffix(strings.TrimPrefix(name, "/proc/"), "/cmdline")
		if args := strings.TrimSpace(strings.ReplaceAll(line, "\x00", " ")); ok && args != "" && !strings.Contains(run("ps -a "+pid), "ARG: "+args+"\n") {
			t.Errorf("ps -a %s is not %q", pid, args)
		}
	}
	if got := lines(run("ps -p dying")); !strings.HasPrefix(got[0], "PID: 0 ") || !strings.Contains(got[len(got)-1], "dying") || !strings.Contains(run("ps -c 2"), `COMMAND: "kworker/`) {
		t.Errorf("ps -p dying: %v", got)
	}
	plain, bare := lines(run("log")), lines(run("log -t"))
	for i, l := range plain {
		if !strings.HasSuffix(l, bare[i]) || len(plain) != len(bare) {
			t.Fatalf("log -t has %q for %q", bare[i], l)
		}
	}
	all, kernel, user := len(lines(run("ps"))), len(lines(run("ps -k"))), len(lines(run("ps -u")))
	if all != kernel+user-1 {
		t.Errorf("%d tasks, %d of the kernel, %d of users", all-1, kernel-1, user-1)
	}
	mods := lines(run("list module.list modules"))
	if named := run("list -s module.name -H modules module.list"); strings.Count(named, "name = ") != len(mods) || !strings.Contains(named, `"veth"`) {
		t.Errorf("list -s: %s", named)
	}
	first, back := mods[0], lines(run("list -r -H modules module.list"))
	if back[len(back)-1] != first {
		t.Errorf("list -r: %v, forward %v", back, mods)
	}
	if got := run("struct -l module.list module.name " + "0x" + first + "+" + strings.Trim(strings.Fields(run("struct module.list"))[3], "[]")); !strings.Contains(got, "name = ") {
		t.Errorf("struct -l: %s", got)
	}
	whole := lines(run("dis schedule"))
	third := strings.Fields(whole[2])[0]
	upTo, from := lines(run("dis -r "+third)), lines(run("dis -f "+third))
	if len(upTo) != 3 || upTo[2] != whole[2] || len(from) != len(whole)-2 || !strings.HasPrefix(from[0], third) {
		t.Errorf("dis -r: %q\ndis -f: %q", upTo, from[0])
	}
	if n := strings.Count(run("bt -a"), "PID: "); n != 2 || strings.Count(run("bt -c 0"), "PID: ") != 1 {
		t.Errorf("bt -a has %d stacks", n)
	}
	s := core.New(d, "")
	for _, bad := range []string{"log -d", "mod -t", "sys -c", "mount -f", "ps -x", "bt -z 1", "rd -u 0", "sym -z", "list -e 1 x.y", "struct -q list_head"} {
		if err := s.Run(io.Discard, strings.Fields(bad)); err == nil {
			t.Errorf("%s is not refused", bad)
		}
	}
}
