package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/sysno"
	"github.com/fathom-trace/fathom/kernel/live"
)

// symbolText is /proc/kallsyms, read by other means than what is tested: names by address, and the addresses sorted.
type symbolText struct {
	addrs []uint64
	names map[uint64][]string
}

func readSymbols(t *testing.T, text string) symbolText {
	t.Helper()
	s := symbolText{names: map[uint64][]string{}}
	for l := range strings.Lines(text) {
		f := strings.Fields(l)
		at, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil || len(f) < 3 {
			t.Fatalf("%q", l)
		}
		name := f[2]
		if len(f) > 3 {
			name += " " + f[3]
		}
		if s.names[at] == nil {
			s.addrs = append(s.addrs, at)
		}
		s.names[at] = append(s.names[at], name)
	}
	slices.Sort(s.addrs)
	return s
}

// want gives what may be said of an address: the names at the last symbol before it, with how far behind it is.
func (s symbolText) want(at uint64) (out []string) {
	i, found := slices.BinarySearch(s.addrs, at)
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	for _, n := range s.names[s.addrs[i]] {
		name, module, _ := strings.Cut(n, " ")
		n = fmt.Sprintf("%s+%#x", name, at-s.addrs[i])
		if module != "" {
			n += " " + module
		}
		out = append(out, n)
	}
	return out
}

// compare looks at what was said of addresses, and gives how many are the same.
func (s symbolText) compare(t *testing.T, answers string) (same int) {
	t.Helper()
	for block := range strings.SplitSeq(answers, "\n\n") {
		first, rest, _ := strings.Cut(block, "\n")
		at, err := strconv.ParseUint(strings.TrimSpace(first), 0, 64)
		if err != nil {
			t.Fatalf("%q", block)
		}
		_, symbol, _ := strings.Cut(rest, "  symbol    ")
		symbol, _, _ = strings.Cut(symbol, "\n")
		if want := s.want(at); !slices.Contains(want, symbol) {
			t.Errorf("%#x is said to be %q, and is %q", at, symbol, want)
		} else {
			same++
		}
	}
	return same
}

// manyAddresses is how many addresses are compared.
const manyAddresses = 1000

// TestAddressesByFiles: where the kernel that runs does not show its memory, addresses anywhere in its image have the symbols that
// /proc/kallsyms says.
func TestAddressesByFiles(t *testing.T) {
	ktest.Need(t, ktest.Kallsyms)
	text, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	syms := readSymbols(t, string(text))
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	table, err := l.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	from, to := table.ByName("_stext"), table.ByName("_etext")
	if len(from) != 1 || len(to) != 1 {
		t.Skip("the kernel does not say where its code is")
	}
	r := rand.New(rand.NewPCG(1, 2))
	var out strings.Builder
	for i := range manyAddresses {
		if i > 0 {
			out.WriteByte('\n')
		}
		if at := from[0] + r.Uint64N(to[0]-from[0]); !symbolOf(&out, table, fmt.Sprintf("%#x", at)) {
			t.Errorf("%#x is of no symbol", at)
		}
	}
	if n := syms.compare(t, strings.TrimSuffix(out.String(), "\n")); n != manyAddresses {
		t.Errorf("%d of %d are the same", n, manyAddresses)
	}
}

// guestText has a guest with nokaslr, whose code begins there, say what addresses at random are of, what its symbols are, what its
// system calls are, and which fields their events have.
func guestText() string {
	const begin, size = 0xffffffff81000000, 12 << 20 // of code, less than any of Debian's has
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	b.WriteString("\nB=/bin/busybox\necho ASKED symbols; $B gzip -c /proc/kallsyms | $B base64; echo END\necho ASKED addresses; /init explain address")
	for range manyAddresses {
		fmt.Fprintf(&b, " %#x", begin+r.Uint64N(size))
	}
	b.WriteString("; echo END\necho ASKED fields; cd /sys/kernel/tracing/events/syscalls; $B grep -H field: sys_enter_*/format | $B gzip | $B base64; cd /; echo END")
	b.WriteString("\necho ASKED syscalls; /init explain syscall -j")
	for _, n := range sysno.Names("amd64") {
		if n != "" {
			b.WriteString(" " + n)
		}
	}
	return b.String() + "; echo END\n"
}

// guestAnswer is what the guest said to a question.
func guestAnswer(t *testing.T, out, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(out, "ASKED "+to+"\n")
	text, _, end := strings.Cut(rest, "END\n")
	if !ok || !end {
		t.Fatalf("no answer to %s:\n%s", to, out)
	}
	return text
}

// unpacked is what the guest has packed and written in letters.
func unpacked(t *testing.T, text string) string {
	t.Helper()
	packed, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkGuestText compares what the guest said.
func checkGuestText(t *testing.T, out string) {
	t.Helper()
	syms := readSymbols(t, unpacked(t, guestAnswer(t, out, "symbols")))
	if n := syms.compare(t, strings.TrimSuffix(guestAnswer(t, out, "addresses"), "\n")); n != manyAddresses {
		t.Errorf("%d of %d addresses have the symbols that kallsyms says", n, manyAddresses)
	}
	checkSyscalls(t, guestAnswer(t, out, "syscalls"), fieldsOf(t, unpacked(t, guestAnswer(t, out, "fields"))), syms)
}

// fieldsOf reads the fields of events out of lines of their formats, by event: "const char * filename".
func fieldsOf(t *testing.T, text string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for l := range strings.Lines(text) {
		event, rest, ok := strings.Cut(l, "/format:")
		_, field, found := strings.Cut(rest, "field:")
		field, _, _ = strings.Cut(field, ";")
		if !ok || !found {
			t.Fatalf("%q", l)
		}
		if _, name, _ := strings.Cut(field, " common_"); name == "" {
			out[event] = append(out[event], field)
		}
	}
	for event, f := range out {
		out[event] = f[1:] // the first is the number
	}
	return out
}

// checkSyscalls: all system calls have an entry, whose function is the kernel's, and the arguments that their events have.
func checkSyscalls(t *testing.T, answers string, events map[string][]string, syms symbolText) {
	t.Helper()
	functions := map[string]bool{}
	for _, names := range syms.names {
		for _, n := range names {
			functions[n] = true
		}
	}
	seen := map[int]bool{}
	explained, absent := 0, []string(nil)
	for line := range strings.Lines(answers) {
		var c struct {
			Name   string
			Number int
			Args   []struct{ Name, Type, Register string }
			Path   []string
			Event  string
			Absent bool
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		seen[c.Number] = true
		// What is there has an event, and a function; and the other way round, but for those that stand for what is not there.
		last := c.Path[len(c.Path)-1]
		if c.Absent == (c.Event != "") || c.Absent && strings.HasPrefix(last, "__x64_sys_") || slices.ContainsFunc(c.Path, func(f string) bool { return !functions[f] }) {
			t.Errorf("%s: absent %v, event %q, its way in is %v", c.Name, c.Absent, c.Event, c.Path)
		}
		var args []string
		for _, a := range c.Args {
			if a.Name == "" || a.Type == "" || a.Register == "" {
				t.Errorf("%s: %+v", c.Name, a)
			}
			args = append(args, a.Type+" "+a.Name)
		}
		want, ok := events[strings.TrimPrefix(c.Event, "syscalls:")]
		switch {
		case ok && !slices.Equal(args, want):
			t.Errorf("%s: %q, its event has %q", c.Name, args, want)
		case ok:
			explained++
		case c.Absent:
			absent = append(absent, c.Name)
		default:
			t.Errorf("%s: its event %q is not among those of the guest", c.Name, c.Event)
		}
	}
	for nr, name := range sysno.Names("amd64") {
		if name != "" && !seen[nr] {
			t.Errorf("%s, %d, has no entry", name, nr)
		}
	}
	if explained < 300 {
		t.Errorf("only %d system calls have the arguments of their event", explained)
	}
	t.Logf("%d system calls: %d as their events say; not in this kernel: %v", len(seen), explained, absent)
}
