package oops

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// death is a text of testdata/deaths-*.json.gz, which internal/gen/deaths made in guests: what was provoked, and what the
// console had of it.
type death struct {
	Way, Context           string
	Kind, Function, Module string
	Addr                   uint64
	Access                 string
	Kernel, Text           string
}

func (d death) name() string { return fmt.Sprintf("%s %s in %s", d.Kernel, d.Way, d.Context) }

func deaths(t testing.TB) (out []death) {
	t.Helper()
	files, err := filepath.Glob("testdata/deaths-*.json.gz")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v: %v", files, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for dec := json.NewDecoder(z); ; {
			var d death
			if err := dec.Decode(&d); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out = append(out, d)
		}
	}
	return out
}

// verdict is what a text must be read as; what the way does not determine is left out on both sides.
func (d death) verdict(r Report) (want, got map[string]string) {
	want = map[string]string{"kind": d.Kind, "module": d.Module, "context": d.Context}
	got = map[string]string{"kind": string(r.Kind), "module": r.Guilty(), "context": r.Context}
	if d.Function != "" {
		want["function"] = d.Function
		got["function"], _, _ = strings.Cut(r.Where().Symbol, ".") // the compiler's parts: .cold, .isra.0
	}
	if d.Addr != 0 {
		want["address"], got["address"] = fmt.Sprintf("%#x", d.Addr), fmt.Sprintf("%#x", r.Addr)
	}
	if d.Access != "" {
		want["access"], got["access"] = d.Access, r.Access
	}
	return want, got
}

func (d death) check(t *testing.T, how string, rs []Report) {
	t.Helper()
	if len(rs) == 0 {
		t.Errorf("%s, %s: nothing found in\n%s", d.name(), how, d.Text)
		return
	}
	want, got := d.verdict(rs[0])
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, %s: %s\n%s", d.name(), how, rs[0].Title, diff)
	}
}

var stamp = regexp.MustCompile(`(?m)^\[ *\d+\.\d+\] `)

// carriers are ways in which a console's text comes: each changes every line.
var carriers = map[string]func(text string) string{
	"serial line":         func(s string) string { return s },
	"carriage returns":    func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	"no timestamps":       func(s string) string { return stamp.ReplaceAllString(s, "") },
	"journal":             func(s string) string { return prefixed(stamp.ReplaceAllString(s, ""), "Nov 21 06:10:09 web1 kernel: ") },
	"journal with stamps": func(s string) string { return prefixed(s, "2026-11-21T06:10:09.123456+00:00 web1 kernel: ") },
	"mail":                func(s string) string { return prefixed(s, "> ") },
	"mail, twice quoted":  func(s string) string { return prefixed(stamp.ReplaceAllString(s, ""), ">> ") },
	"priorities":          func(s string) string { return prefixed(s, "<4>") },
	"netconsole":          func(s string) string { return prefixed(stamp.ReplaceAllString(s, ""), "4,812,98765432,-;") },
	"callers":             func(s string) string { return stamp.ReplaceAllString(s, "[   12.000000][  T187] ") },
	// Another CPU says harmless things between the lines.
	"another CPU": func(s string) string {
		var b strings.Builder
		for i, l := range strings.SplitAfter(s, "\n") {
			b.WriteString(l)
			if l != "" {
				fmt.Fprintf(&b, "[   12.%06d] %s\n", i, harmless[i%len(harmless)])
			}
		}
		return b.String()
	},
}

var harmless = []string{
	"virtio_net virtio0 eth0: Link is Up", "EXT4-fs (vda1): mounted filesystem with ordered data mode", "audit: type=1400 audit(1.2:3): apparmor=\"STATUS\"",
	"systemd[1]: Started Getty on tty1.", "e1000: eth1 NIC Link is Up 1000 Mbps Full Duplex", "perf: interrupt took too long (2512 > 2500), lowering",
}

func prefixed(text, prefix string) string {
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = prefix + l
		}
	}
	return strings.Join(lines, "")
}

// TestDeaths reads what consoles of guests had of each way to die, in every way that such text comes.
func TestDeaths(t *testing.T) {
	all := deaths(t)
	if len(all) < 100 {
		t.Errorf("%d texts", len(all))
	}
	for i, d := range all {
		for how, carry := range carriers {
			d.check(t, how, Parse([]byte(carry(d.Text))))
		}
		other := all[(i+1)%len(all)]
		text, writer := interleaved(d.Text, other.Text)
		var firsts [2][]Report
		for _, r := range Parse([]byte(text)) {
			firsts[writer[r.Line-1]] = append(firsts[writer[r.Line-1]], r)
		}
		d.check(t, "beside another", firsts[0])
		other.check(t, "beside another", firsts[1])
	}
}

// TestMadeTexts reads testdata/made.txt: texts that Debian's kernels are not built to print, or that other kernels and
// machines do, made after the kernel's print code (mm/kasan/report.c, mm/kmsan/report.c, kernel/kcsan/report.c, lib/ubsan.c,
// kernel/locking/lockdep.c, arch/x86/kernel/cpu/mce/core.c, arch/arm64/mm/fault.c …). Names in them are not the kernel's.
func TestMadeTexts(t *testing.T) {
	b, err := os.ReadFile("testdata/made.txt")
	if err != nil {
		t.Fatal(err)
	}
	texts := strings.Split(string(b), "#### ")[1:]
	if len(texts) < 40 {
		t.Errorf("%d texts", len(texts))
	}
	for _, text := range texts {
		head, text, _ := strings.Cut(text, "\n")
		for how, carry := range carriers {
			rs := Parse([]byte(carry(text)))
			if len(rs) == 0 {
				t.Errorf("%s, %s: nothing found", head, how)
				continue
			}
			w := of(rs[0])
			w.Function, _, _ = strings.Cut(w.Function, ".")
			if got := fmt.Sprintf("%s | %s | %s | %#x | %s", w.Kind, w.Function, w.Module, w.Addr, w.Access); got != head {
				t.Errorf("%s:\n got %s\nwant %s", how, got, head)
			}
		}
	}
}

// interleaved has two CPUs write line by line in turn, on a kernel that prints who writes; writer is the CPU of each line.
func interleaved(a, b string) (text string, writer []int) {
	var out strings.Builder
	as, bs := strings.SplitAfter(a, "\n"), strings.SplitAfter(b, "\n")
	for i := range max(len(as), len(bs)) {
		for cpu, lines := range [][]string{as, bs} {
			if i < len(lines) && lines[i] != "" {
				out.WriteString(fmt.Sprintf("[   12.000000][    C%d] ", cpu) + strings.TrimSuffix(stamp.ReplaceAllString(lines[i], ""), "\n") + "\n")
				writer = append(writer, cpu)
			}
		}
	}
	return out.String(), writer
}
