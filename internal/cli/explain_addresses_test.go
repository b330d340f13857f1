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

// guestText has a guest with nokaslr, whose code begins there, say what addresses at random are of, what its symbols are, and what
// its system calls are.
func guestText() string {
	const begin, size = 0xffffffff81000000, 12 << 20 // of code, less than any of Debian's has
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	b.WriteString("\necho ASKED symbols; $B gzip -c /proc/kallsyms | $B base64; echo END\necho ASKED addresses; /init explain address")
	for range manyAddresses {
		fmt.Fprintf(&b, " %#x", begin+r.Uint64N(size))
	}
	b.WriteString("; echo END\necho ASKED syscalls; /init explain syscall -j")
	for _, n := range sysno.Names("amd64") {
		if n != "" {
			b.WriteString(" " + n)
		}
	}
	return b.String() + "; echo END\n"
}

// checkGuestText compares what the guest said.
func checkGuestText(t *testing.T, out string) {
	t.Helper()
	answer := func(to string) string {
		_, rest, ok := strings.Cut(out, "ASKED "+to+"\n")
		text, _, end := strings.Cut(rest, "END\n")
		if !ok || !end {
			t.Fatalf("no answer to %s", to)
		}
		return text
	}
	packed, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(answer("symbols"), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if n := readSymbols(t, string(text)).compare(t, strings.TrimSuffix(answer("addresses"), "\n")); n != manyAddresses {
		t.Errorf("%d of %d addresses have the symbols that kallsyms says", n, manyAddresses)
	}
	numbers := map[int]bool{}
	events := 0
	for line := range strings.Lines(answer("syscalls")) {
		var c struct {
			Name   string
			Number int
			Args   []struct{ Name, Register string }
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
		numbers[c.Number] = true
		if c.Event != "" {
			events++
		}
		if c.Event != "" && c.Absent || !c.Absent && len(c.Path) == 0 || slices.ContainsFunc(c.Args, func(a struct{ Name, Register string }) bool { return a.Name == "" || a.Register == "" }) {
			t.Errorf("%+v", c)
		}
	}
	for nr, name := range sysno.Names("amd64") {
		if name != "" && !numbers[nr] {
			t.Errorf("%s, %d, has no entry", name, nr)
		}
	}
	if events < 300 {
		t.Errorf("only %d system calls have an event", events)
	}
	t.Logf("%d system calls, %d with an event", len(numbers), events)
}
