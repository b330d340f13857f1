package usersym

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/debuginfo/elf"
	"github.com/fathom-trace/fathom/internal/ktest"
)

func TestMain(m *testing.M) { ktest.Main(m, ktest.Config{}) }

// compile builds testdata/prog.c.
func compile(t *testing.T, name string, flags ...string) string {
	t.Helper()
	gcc := ktest.Oracle(t, "gcc")
	out := filepath.Join(t.TempDir(), name)
	run(t, gcc, append(flags, "-O1", "-g", "-Wl,--build-id", "-o", out, "testdata/prog.c")...)
	return out
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	b, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, b)
	}
	return string(b)
}

// proc is a running prog.c.
type proc struct {
	pid            int
	hello, getppid uint64
	stop           func()
}

func start(t *testing.T, path string) *proc {
	t.Helper()
	cmd := exec.Command(path)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proc{pid: cmd.Process.Pid}
	p.stop = func() {
		if in != nil {
			in.Close()
			io.Copy(io.Discard, out)
			cmd.Wait()
			in = nil
		}
	}
	t.Cleanup(p.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, err2 := fmt.Sscanf(line, "0x%x 0x%x", &p.hello, &p.getppid); err != nil || err2 != nil {
		t.Fatal(line, err, err2)
	}
	return p
}

// function is what nm knows.
type function struct {
	addr, size uint64
	names      []string
}

// nm lists the functions of a file that have a size.
func nm(t *testing.T, path string, flags ...string) []function {
	t.Helper()
	byAddr := map[uint64]*function{}
	for line := range strings.Lines(run(t, ktest.Oracle(t, "nm"), append(flags, "-S", "--defined-only", path)...)) {
		f := strings.Fields(line)
		if len(f) != 4 || !strings.Contains("tTwWi", f[2]) {
			continue
		}
		var fn function
		fmt.Sscanf(f[0], "%x", &fn.addr)
		fmt.Sscanf(f[1], "%x", &fn.size)
		if byAddr[fn.addr] == nil {
			byAddr[fn.addr] = &fn
		}
		name, _, _ := strings.Cut(f[3], "@")
		byAddr[fn.addr].names = append(byAddr[fn.addr].names, name)
	}
	var fns []function
	for _, f := range byAddr {
		fns = append(fns, *f)
	}
	return fns
}

// check compares names at the start, middle and end of every function, in a process where the file is bias from where it
// was linked to; at least 95 % must agree.
func check(t *testing.T, r *Resolver, pid int, bias uint64, fns []function) {
	t.Helper()
	good, bad := 0, 0
	for _, fn := range fns {
		for _, in := range []uint64{0, fn.size / 2, fn.size - 1} {
			f, ok := r.Resolve(pid, fn.addr+in+bias)
			if ok && slices.Contains(fn.names, f.Symbol) && f.Offset == in && f.Addr == fn.addr+in {
				good++
			} else if bad++; bad < 5 {
				t.Logf("%v+%#x: %+v %v", fn.names, in, f, ok)
			}
		}
	}
	t.Logf("%d of %d", good, good+bad)
	if good < 20 || good*100 < (good+bad)*95 {
		t.Errorf("%d of %d named", good, good+bad)
	}
}

func symbol(t *testing.T, fns []function, name string) function {
	t.Helper()
	i := slices.IndexFunc(fns, func(f function) bool { return slices.Contains(f.names, name) })
	if i < 0 {
		t.Fatalf("nm has no %s", name)
	}
	return fns[i]
}

func TestNM(t *testing.T) {
	for name, flags := range map[string][]string{"pie": {"-pie", "-fPIE"}, "nopie": {"-no-pie", "-fno-pie"}, "static": {"-static"}, "static-pie": {"-static-pie", "-fPIE"}} {
		t.Run(name, func(t *testing.T) {
			path := compile(t, name, flags...)
			fns := nm(t, path)
			hello := symbol(t, fns, "hello")
			for range 2 { // under address randomisation
				r := New(Options{})
				defer r.Close()
				p := start(t, path)
				r.Note(p.pid)
				if name == "nopie" && p.hello != hello.addr {
					t.Errorf("is relocated: %x, %x", p.hello, hello.addr)
				}
				p.stop()
				os.Chmod(path, 0o755)
				check(t, r, p.pid, p.hello-hello.addr, fns) // after it ended
			}
			off, addr, size, ok := New(Options{}).SymbolAddr(path, "hello")
			if !ok || addr != hello.addr || size != hello.size {
				t.Errorf("SymbolAddr: %x %x %d %v, want %+v", off, addr, size, ok, hello)
			}
		})
	}
}

// TestAddr2line compares with the second oracle.
func TestAddr2line(t *testing.T) {
	path := compile(t, "prog")
	args := []string{"-f", "-e", path}
	var fns []function
	for _, f := range nm(t, path) {
		if strings.HasPrefix(f.names[0], "fn_") || f.names[0] == "cold" || f.names[0] == "local" {
			fns = append(fns, f)
			args = append(args, fmt.Sprintf("%#x", f.addr+f.size/2))
		}
	}
	lines := strings.Split(run(t, ktest.Oracle(t, "addr2line"), args...), "\n")
	r := New(Options{})
	defer r.Close()
	p := start(t, path)
	bias := p.hello - symbol(t, nm(t, path), "hello").addr
	for i, f := range fns {
		if got, ok := r.Resolve(p.pid, f.addr+f.size/2+bias); !ok || got.Name != lines[2*i] || got.File != path {
			t.Errorf("%v: %+v, addr2line says %s", f.names, got, lines[2*i])
		}
	}
}

func TestLibc(t *testing.T) {
	r := New(Options{})
	defer r.Close()
	p := start(t, compile(t, "prog"))
	p.stop0(t, r)
	libc, ok := r.FindBinary("libc", 0)
	if !ok {
		t.Skip("no libc")
	}
	f, ok := r.Resolve(p.pid, p.getppid)
	if !ok || f.Name != "getppid" || f.Offset != 0 {
		t.Errorf("getppid: %+v %v", f, ok)
	}
	fns := nm(t, libc, "-D")
	off, addr, _, ok := r.SymbolAddr("libc", "getppid")
	if want := symbol(t, fns, "getppid").addr; !ok || addr != want || off == 0 {
		t.Errorf("libc:getppid at %x (file %x), want %x", addr, off, want)
	}
	check(t, r, p.pid, p.getppid-addr, fns)
	all, err := r.Functions(libc)
	if err != nil || len(all) < 1000 || !slices.ContainsFunc(all, func(s Sym) bool { return s.Name == "getppid" && s.Offset == off }) {
		t.Errorf("%d functions, %v", len(all), err)
	}
}

// stop0 notes a process and ends it.
func (p *proc) stop0(t *testing.T, r *Resolver) {
	t.Helper()
	r.Note(p.pid)
	p.stop()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.pid)); err == nil {
		t.Fatal("still there")
	}
}

// TestGone removes the file as well as the process.
func TestGone(t *testing.T) {
	path := compile(t, "prog")
	fns := nm(t, path)
	bias := func(p *proc) uint64 { return p.hello - symbol(t, fns, "hello").addr }
	for _, when := range []string{"before", "after"} {
		c := filepath.Join(t.TempDir(), "copy")
		run(t, "cp", path, c)
		r := New(Options{})
		p := start(t, c)
		if when == "before" { // deleted when noted: found through map_files
			os.Remove(c)
		}
		p.stop0(t, r)
		os.Remove(c)
		if when == "before" && os.Getuid() != 0 {
			r.Close()
			continue
		}
		check(t, r, p.pid, bias(p), fns)
		r.Close()
	}
}

// TestSeparate strips the program and gives the symbols by build id, debug link and .gnu_debugdata.
func TestSeparate(t *testing.T) {
	objcopy := ktest.Oracle(t, "objcopy")
	for _, how := range []string{"build-id", "debuglink", "debuglink-crc", "debugdata"} {
		t.Run(how, func(t *testing.T) {
			flags := []string{}
			if how == "debuglink-crc" {
				flags = append(flags, "-Wl,--build-id=none")
			}
			path := compile(t, "prog", flags...)
			fns := nm(t, path)
			hello := symbol(t, fns, "hello")
			dir := filepath.Dir(path)
			debug := filepath.Join(dir, "prog.debug")
			run(t, objcopy, "--only-keep-debug", path, debug)
			run(t, "strip", path)
			o := Options{Debug: filepath.Join(dir, "usr-lib-debug")}
			switch how {
			case "build-id":
				id := buildID(t, path)
				d := filepath.Join(o.Debug, ".build-id", id[:2])
				os.MkdirAll(d, 0o755)
				if err := os.Rename(debug, filepath.Join(d, id[2:]+".debug")); err != nil {
					t.Fatal(err)
				}
			case "debuglink", "debuglink-crc":
				run(t, objcopy, "--add-gnu-debuglink="+debug, path)
			case "debugdata":
				run(t, ktest.Oracle(t, "xz"), "-k", debug)
				run(t, objcopy, "--add-section=.gnu_debugdata="+debug+".xz", path)
				os.Remove(debug)
			}
			r := New(o)
			defer r.Close()
			p := start(t, path)
			p.stop0(t, r)
			check(t, r, p.pid, p.hello-hello.addr, fns)
		})
	}
}

func buildID(t *testing.T, path string) string {
	t.Helper()
	_, id, ok := strings.Cut(run(t, ktest.Oracle(t, "readelf"), "-n", path), "Build ID: ")
	if !ok {
		t.Skip("no build id")
	}
	return strings.Fields(id)[0]
}

// TestSelf is about this process: a Go program, with lines; its vDSO; and code that a JIT compiler might have made.
func TestSelf(t *testing.T) {
	r := New(Options{Lines: true})
	defer r.Close()
	pid := os.Getpid()
	var here uint64
	syms, err := r.Functions("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		if s.Name == "github.com/fathom-trace/fathom/usersym.TestSelf" {
			here = s.Addr // linked at a fixed address
		}
	}
	if here == 0 {
		t.Fatalf("%d functions, and not this one: %v", len(syms), syms[:min(3, len(syms))])
	}
	f, ok := r.Resolve(pid, here)
	if !ok || !strings.HasSuffix(f.Name, "usersym.TestSelf") || !strings.HasSuffix(f.Source, "usersym_test.go") || f.Line == 0 {
		t.Errorf("%x: %+v", here, f)
	}
	if fs := r.Frames(pid, []uint64{here, here + 1, 1}); fs[0].Offset != 0 || fs[1].Offset != 1 || fs[1].Name != f.Name || fs[2].Name != "" {
		t.Errorf("%+v", fs)
	}
	b, _ := os.ReadFile("/proc/self/maps")
	for _, m := range parseMaps(b) {
		if m.path != "[vdso]" {
			continue
		}
		s := r.load(r.vdso(pid, m))
		i := slices.IndexFunc(s.funcs.All(), func(s elf.Sym) bool { return strings.Contains(s.Name, "clock_gettime") })
		if i < 0 {
			t.Fatal("no clock_gettime in the vDSO")
		}
		if f, ok := r.Resolve(pid, m.start+s.funcs.All()[i].Addr); !ok || !strings.Contains(f.Name, "clock_gettime") || f.File != "[vdso]" {
			t.Errorf("vDSO: %+v", f)
		}
	}
}

func TestJIT(t *testing.T) {
	p := start(t, compile(t, "prog"))
	name := fmt.Sprintf("/tmp/perf-%d.map", p.pid)
	if err := os.WriteFile(name, []byte("10000 100 jitted one\n"), 0o600); err != nil {
		t.Skip(err)
	}
	defer os.Remove(name)
	r := New(Options{})
	defer r.Close()
	r.Note(p.pid)
	f, _ := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	fmt.Fprintln(f, "20000 100 jitted two")
	f.Close()
	p.stop()
	os.Remove(name)
	for addr, want := range map[uint64]string{0x10010: "jitted one", 0x20010: "jitted two"} {
		if f, ok := r.Resolve(p.pid, addr); !ok || f.Name != want || f.Offset != 0x10 {
			t.Errorf("%x: %+v %v", addr, f, ok)
		}
	}
}

func TestFindBinary(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o755, "data": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	r := New(Options{Path: "/nosuch:" + dir})
	for name, want := range map[string]string{"tool": filepath.Join(dir, "tool"), "data": "", "": "", dir: "", "/proc/self/exe": "/proc/self/exe", "nosuch": ""} {
		if got, ok := r.FindBinary(name, 0); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v, want %q", name, got, ok, want)
		}
	}
	for _, bad := range []string{dir, filepath.Join(dir, "tool"), filepath.Join(dir, "nosuch"), "/dev/null"} {
		if _, err := r.Functions(bad); err == nil {
			t.Errorf("%s has functions", bad)
		}
	}
}

func TestNoProcess(t *testing.T) {
	r := New(Options{})
	defer r.Close()
	if f, ok := r.Resolve(1<<30, 0x1000); ok {
		t.Error(f)
	}
	r.Note(1 << 30)
	if len(r.procs) != 0 {
		t.Error("remembers what never was")
	}
}

func BenchmarkResolve(b *testing.B) {
	r := New(Options{})
	defer r.Close()
	syms, err := r.Functions("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	pid := os.Getpid()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Resolve(pid, syms[i%len(syms)].Addr)
	}
}

// BenchmarkNote is what a new process of known files costs.
func BenchmarkNote(b *testing.B) {
	r := New(Options{})
	defer r.Close()
	begin := time.Now()
	r.Note(os.Getpid())
	b.ReportMetric(float64(time.Since(begin).Nanoseconds()), "ns/first")
	for b.Loop() {
		r.Note(os.Getpid())
	}
}
