package guest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// fakeApt puts an apt and a dpkg in front of PATH that know two packages, and returns a cache. Each download is a line in
// the log.
func fakeApt(t *testing.T, search string) (c Cache, log string) {
	t.Helper()
	bin := t.TempDir()
	log = filepath.Join(bin, "log")
	for name, script := range map[string]string{
		"apt-cache": search,
		"apt-get":   `for p; do :; done; echo "$p" >> ` + log + `; : > "$p.deb"`,
		"dpkg":      `p=${2##*/}; p=${p%.deb}; r=${p#linux-image-}; mkdir -p "$3/boot" "$3/usr/share/doc"; : > "$3/boot/vmlinuz-$r"`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return Cache{Dir: filepath.Join(t.TempDir(), "fathom")}, log
}

const searchOutput = `cat <<E
linux-image-6.12.9+deb12-amd64 - Linux 6.12 for 64-bit PCs (signed)
linux-image-6.12.117+deb12-amd64 - Linux 6.12 for 64-bit PCs (signed)
linux-image-6.12.117+deb12-cloud-amd64 - cloud
linux-image-6.12.117+deb12-rt-amd64 - rt
linux-image-6.12.118+deb12-amd64-dbg - dbg
linux-image-6.12.119+deb12-amd64-unsigned - unsigned
E`

func TestCacheKernel(t *testing.T) {
	c, log := fakeApt(t, searchOutput)
	if err := os.MkdirAll(filepath.Join(c.kernels(), "tmp-stale"), 0o755); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 { // one downloads, the others wait for it
		wg.Go(func() {
			k, err := c.Kernel(t.Context(), "debian-6.12")
			want := Kernel{Name: "debian-6.12", Package: "linux-image-6.12.117+deb12-amd64", Release: "6.12.117+deb12-amd64",
				Dir: filepath.Join(c.kernels(), "linux-image-6.12.117+deb12-amd64")}
			if err != nil || k != want {
				t.Error(err, cmp.Diff(want, k))
			}
		})
	}
	wg.Wait()
	if b, _ := os.ReadFile(log); string(b) != "linux-image-6.12.117+deb12-amd64\n" {
		t.Errorf("downloads: %q", b)
	}
	left, _ := filepath.Glob(filepath.Join(c.kernels(), "*"))
	if len(left) != 2 { // the kernel and the lock
		t.Error("cache holds", left)
	}
	if _, err := c.Kernel(t.Context(), "plan9"); err == nil || !strings.Contains(err.Error(), "debian-6.1") {
		t.Error(err)
	}
}

func TestCacheErrors(t *testing.T) {
	for name, search := range map[string]string{"no lists": "", "apt fails": "echo E: broken >&2; exit 100"} {
		t.Run(name, func(t *testing.T) {
			c, _ := fakeApt(t, search)
			_, err := c.Kernel(t.Context(), "debian-6.1")
			var se *SetupError
			if !errors.As(err, &se) || !slices.Equal(se.Try, []string{"apt-get update"}) {
				t.Fatal(err)
			}
			if lines := strings.Split(err.Error(), "\n"); len(lines) != 3 || lines[0] != "get kernel debian-6.1" ||
				!strings.HasPrefix(lines[1], "because: ") || lines[2] != "try: apt-get update" {
				t.Error(err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, _ := fakeApt(t, searchOutput)
	if _, err := c.Kernel(ctx, "debian-6.12"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCompareVersions(t *testing.T) {
	in := []string{"a-6.12.100", "a-6.12.9", "a-6.1.0-56", "a-6.1.0-9", "a-6.12.100+deb12"}
	slices.SortFunc(in, compareVersions)
	want := []string{"a-6.1.0-9", "a-6.1.0-56", "a-6.12.9", "a-6.12.100", "a-6.12.100+deb12"}
	if diff := cmp.Diff(want, in); diff != "" {
		t.Error(diff)
	}
}

func TestParseAccel(t *testing.T) {
	for in, want := range map[string]Accel{"tcg": TCG, "kvm": KVM, "tcg,thread=multi": TCGMulti, "xen": ""} {
		if got, err := ParseAccel(in); got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q, %v", in, got, err)
		}
	}
}

func TestRing(t *testing.T) {
	var tee bytes.Buffer
	r := newRing(&tee)
	var all strings.Builder
	for i := range 5000 {
		line := strings.Repeat(string(rune('a'+i%26)), i%97) + "\n"
		all.WriteString(line)
		r.Write([]byte(line))
	}
	if want := all.String(); r.String() != want[len(want)-ringSize:] || tee.String() != want {
		t.Error("the ring does not hold the end")
	}
	if len(r.buf) > 2*ringSize {
		t.Error("the ring grows to", len(r.buf))
	}
}

func TestPanicLine(t *testing.T) {
	const con = "[ 1.0] sysrq: Trigger a crash\r\n[ 1.1] Kernel panic - not syncing: sysrq triggered crash\r\n[ 1.2] CPU: 0\r\n"
	if got := panicLine(con); got != "Kernel panic - not syncing: sysrq triggered crash" {
		t.Errorf("%q", got)
	}
	if got := panicLine("all is well"); got != "" {
		t.Errorf("%q", got)
	}
}

// stream is what a guest sends for two commands, of which the second does not end.
func stream() []byte {
	var b bytes.Buffer
	w := pid1.NewFrameWriter(&b)
	w.SendJSON(pid1.Hello, 0, pid1.Greeting{Release: "6.1"})
	w.Send(pid1.Log, 0, []byte("oh"))
	w.Send(pid1.Stdout, 0, []byte("out"))
	w.Send(pid1.Stderr, 0, []byte("err"))
	w.SendJSON(pid1.Exit, 0, pid1.Exited{Code: 2, Secs: 1})
	w.SendJSON(pid1.File, 0, pid1.FileHead{Name: "/f"})
	w.Send(pid1.Data, 0, []byte("da"))
	w.Send(pid1.Data, 0, []byte("ta"))
	w.Send(pid1.Stdout, 1, []byte("more"))
	w.Send(pid1.Stdout, 9, []byte("no such command"))
	w.Send(pid1.Done, 0, nil)
	return b.Bytes()
}

func collect(b []byte) (Result, bool, error) {
	c := newCollector(&Options{Commands: make([]pid1.Command, 2)}, func() {}, func() {})
	err := c.read(bytes.NewReader(b))
	return c.result(), c.done, err
}

func TestCollector(t *testing.T) {
	got, done, err := collect(stream())
	want := Result{
		Commands: []CommandResult{{Code: 2, Stdout: "out", Stderr: "err", Took: 1e9}, {Code: -1, Stdout: "more"}},
		Files:    map[string][]byte{"/f": []byte("data")}, Log: []string{"oh"}, Release: "6.1",
	}
	if diff := cmp.Diff(want, got); diff != "" || !done || err != nil {
		t.Error(done, err, diff)
	}
	if _, done, err := collect(stream()[:100]); done || err != nil {
		t.Error("cut short:", done, err)
	}
	if _, _, err := collect([]byte("not a frame at all")); err == nil {
		t.Error("garbage accepted")
	}
	var b bytes.Buffer
	pid1.NewFrameWriter(&b).SendJSON(pid1.Exit, 1, pid1.Exited{})
	if _, _, err := collect(b.Bytes()); err == nil {
		t.Error("exit out of order accepted")
	}
}

func FuzzCollector(f *testing.F) {
	f.Add(stream())
	f.Fuzz(func(t *testing.T, b []byte) { collect(b) })
}

func TestCheckStatic(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip(err)
	}
	var se *SetupError
	if err := checkStatic("/bin/sh"); !errors.As(err, &se) || !strings.Contains(se.Because, "ld-linux") {
		t.Skip("this machine's /bin/sh is static:", err)
	}
	if err := checkStatic("/etc/passwd"); err == nil {
		t.Error("text accepted")
	}
	if err := checkStatic(self); err != nil && !errors.As(err, &se) { // dynamic if tests run with cgo
		t.Error(err)
	}
}

func TestProgram(t *testing.T) {
	files, err := Program("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f.Name))
		if _, err := os.Stat(f.Path); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"sh", "libc.so.6"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %v", want, names)
		}
	}
	if _, err := Program("/nosuch"); err == nil {
		t.Error("no error")
	}
}

func TestArgs(t *testing.T) {
	o := Options{Kernel: Kernel{Dir: "/k", Release: "6.1"}, Accel: TCG, Append: []string{"crashkernel=256M"}, QEMUArgs: []string{"-device", "pvpanic"}}
	o.defaults()
	got := strings.Join(o.args(), " ")
	for _, want := range []string{"-accel tcg,thread=single ", "-m 1024", "-smp 2", "-kernel /k/boot/vmlinuz-6.1", "panic=-1 ", "crashkernel=256M -device pvpanic"} {
		if !strings.Contains(got+" ", want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}
