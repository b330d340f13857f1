package ktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// text is a node as indented lines.
func (n *node) text(indent string) (out []string) {
	for _, c := range n.tests {
		status := c.status
		if status == "" {
			status = "open"
		}
		out = append(out, indent+c.name+" "+status)
		for _, l := range c.log {
			out = append(out, indent+"  | "+l)
		}
		out = append(out, c.text(indent+"  ")...)
	}
	return out
}

func TestParse(t *testing.T) {
	in := strings.ReplaceAll(`^=== RUN   TestA
^=== RUN   TestA/x_y
    a_test.go:1: one
no newline here^=== NAME  TestA
    a_test.go:2: two
^--- PASS: TestA (0.10s)
^    --- SKIP: TestA/x_y (0.00s)
^=== RUN   TestB
--- FAIL: TestA (a test printed this)
^=== PAUSE TestB
^=== CONT  TestB
^--- FAIL: TestB (0.00s)
^=== RUN   TestC
last words
`, "^", marker)
	want := []string{
		"TestA PASS", "  |     a_test.go:2: two",
		"  x_y SKIP", "    |     a_test.go:1: one", "    | no newline here",
		"TestB FAIL", "  | --- FAIL: TestA (a test printed this)",
		"TestC open", "  | last words",
	}
	if diff := cmp.Diff(want, parse(strings.NewReader(in)).text("")); diff != "" {
		t.Error(diff)
	}
}

func TestWanted(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{"all", "debian-6.12 debian-6.12-cloud debian-6.1", ""},
		{"debian-6.1, debian-6.12", "debian-6.1 debian-6.12", ""},
		{"host,debian-6.1", "debian-6.1", ""},
		{"debian-5", "", `FATHOM_GUESTS: no kernel "debian-5"; there are debian-6.12, debian-6.12-cloud, debian-6.1, and files and folders by their whole path`},
		{"debian-6.1,/k/linux.deb", "debian-6.1 /k/linux.deb", ""},
	}
	for _, tt := range tests {
		got, err := wanted(tt.in)
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if strings.Join(got, " ") != tt.want || msg != tt.err {
			t.Errorf("%s: got %v, %q", tt.in, got, msg)
		}
	}
}

func TestKernelTests(t *testing.T) {
	dir := t.TempDir()
	src := `package x
func TestMain(m *testing.M) { ktest.Need(nil) }
func TestDirect(t *testing.T) { ktest.Need(t) }
func TestThrough(t *testing.T) { t.Run("a", func(t *testing.T) { helper(t) }) }
func TestPure(t *testing.T) { other() }
func helper(t *testing.T) { load(t) }
func load(t *testing.T) { helper(t); ktest.NeedGuest(t, ktest.BTF) }
func other() {}
`
	if err := os.WriteFile(filepath.Join(dir, "x_test.go"), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := kernelTests(dir); err != nil || got != "^(TestDirect|TestThrough)$" {
		t.Error(got, err)
	}
	if _, err := kernelTests(t.TempDir()); err == nil {
		t.Error("an empty package has kernel tests")
	}
}

func TestTable(t *testing.T) {
	for _, k := range Kernels {
		for _, f := range k.Must {
			if !slices.Contains(Features(), f) {
				t.Errorf("%s: no detector for %s", k.Name, f)
			}
		}
	}
	if err := Detect("nosuch"); err == nil {
		t.Error("nosuch is there")
	}
}

func TestComplaint(t *testing.T) {
	if got := complaint("a\r\n[ 1.0] BUG: kernel NULL pointer dereference, address: 0\r\nb"); got != "[ 1.0] BUG: kernel NULL pointer dereference, address: 0" {
		t.Errorf("%q", got)
	}
	if got := complaint("[ 1.0] reboot: Power down\r\n"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestLeaks leaves a descriptor, a child and goroutines behind, and sees that each is noticed.
func TestLeaks(t *testing.T) {
	before := snapshot()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt) // starts a goroutine for good, which is no leak
	signal.Stop(sig)
	if n := before.since(snapshot()); len(n) > 0 {
		t.Errorf("os/signal counts: %q", n)
	}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	stop := make(chan struct{})
	for range 20 { // some of other tests may end meanwhile
		go func() { <-stop }()
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	left := before.since(snapshot())
	close(stop)
	f.Close()
	cmd.Wait()
	for _, want := range []string{fmt.Sprintf("/proc/%d/status", os.Getpid()), fmt.Sprintf("child %d ", cmd.Process.Pid), " goroutines"} {
		if !slices.ContainsFunc(left, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("no %q in %q", want, left)
		}
	}
}

// verdict is a testing.TB that says how a test was ended, by panic.
type verdict struct{ testing.TB }

func (verdict) Helper()                   {}
func (verdict) Skip(a ...any)             { panic("skip " + fmt.Sprint(a...)) }
func (verdict) Skipf(f string, a ...any)  { panic("skip " + fmt.Sprintf(f, a...)) }
func (verdict) Fatalf(f string, a ...any) { panic("fail " + fmt.Sprintf(f, a...)) }

// TestNeed: what the table promises fails when it is missing, and nothing else does.
func TestNeed(t *testing.T) {
	detect := func(f Feature) error {
		if f == BTF {
			return nil
		}
		return errors.New("no " + string(f))
	}
	row := Kernel{Name: "k", Must: []Feature{BTF, Kprobe}}
	tests := []struct {
		name string
		k    Kernel
		fs   []Feature
		want string
	}{
		{"has", row, []Feature{BTF}, "run"},
		{"must and lacks", row, []Feature{BTF, Kprobe}, "fail k must have kprobe: no kprobe"},
		{"not in the table", row, []Feature{XDP}, "skip k does not have xdp"},
		{"any has", Kernel{Name: Host, Any: true}, []Feature{BTF}, "run"},
		{"any lacks", Kernel{Name: Host, Any: true}, []Feature{BTF, XDP}, "skip no xdp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := "run"
			func() {
				defer func() {
					if r := recover(); r != nil {
						got = r.(string)
					}
				}()
				need(verdict{t}, tt.k, detect, tt.fs)
			}()
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
