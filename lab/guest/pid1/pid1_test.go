package pid1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// fake is a System that writes down what it is asked, and starts nothing: a command's output is its arguments.
type fake struct {
	job    Job
	fail   map[string]error // by call, as written down
	files  fstest.MapFS
	calls  []string
	sent   bytes.Buffer
	status map[string]syscall.WaitStatus // by Args[0]

	pid     int
	waiting []child
}

type child struct {
	pid int
	ws  syscall.WaitStatus
	err error
}

func (f *fake) call(format string, args ...any) error {
	s := fmt.Sprintf(format, args...)
	f.calls = append(f.calls, s)
	return f.fail[s]
}

func (f *fake) ReadFile(name string) ([]byte, error) {
	b, _ := json.Marshal(f.job)
	return b, f.fail["read "+name]
}
func (f *fake) Glob(p string) ([]string, error)   { return fs.Glob(f.files, p) }
func (f *fake) Open(name string) (fs.File, error) { return f.files.Open(name) }
func (f *fake) Mkdir(string) error                { return nil }
func (f *fake) Symlink(_, name string) error      { return f.fail["symlink "+name] }
func (f *fake) Mount(_, target, fstype, _ string) error {
	return f.call("mount %s %s", fstype, target)
}
func (f *fake) SetHostname(name string) error { return f.call("hostname %s", name) }
func (f *fake) LinkUp(name string) error      { return f.call("up %s", name) }
func (f *fake) LoadModule(path, params string) error {
	return f.call("load %s", strings.TrimSpace(path+" "+params))
}
func (f *fake) OpenPort(name string) (io.ReadWriteCloser, error) { return f, f.call("port %s", name) }
func (f *fake) Write(p []byte) (int, error)                      { return f.sent.Write(p) }
func (f *fake) Close() error                                     { return f.call("close port") }
func (f *fake) Read(p []byte) (int, error)                       { return 0, io.EOF }
func (f *fake) Create(string, fs.FileMode) (io.WriteCloser, error) {
	return nil, syscall.EROFS
}
func (f *fake) UnloadModule(name string) error         { return f.call("unload %s", name) }
func (f *fake) Kill(pid int, sig syscall.Signal) error { return f.call("kill %d %v", pid, sig) }
func (f *fake) Pipe() (io.ReadCloser, *os.File, error) { return os.Pipe() }
func (f *fake) Release() string                        { return "6.1.0" }
func (f *fake) Uptime() float64                        { return 1.5 }
func (f *fake) Complain(err error)                     { f.call("complain %v", err) }
func (f *fake) HandOver() error                        { return f.call("hand over") }
func (f *fake) PowerOff() error                        { return f.call("power off") }

// Start also lets an orphan die first, which Wait must reap without taking it for the command.
func (f *fake) Start(c Command, _, stdout, stderr *os.File) (int, error) {
	if err := f.call("start %s", strings.Join(c.Args, " ")); err != nil {
		return 0, err
	}
	f.pid += 2
	fmt.Fprint(stdout, strings.Join(c.Args, " "))
	fmt.Fprint(stderr, c.Env[len(c.Env)-1])
	f.waiting = append(f.waiting, child{err: syscall.EINTR}, child{pid: f.pid - 1}, child{pid: f.pid, ws: f.status[c.Args[0]]})
	return f.pid, nil
}

func (f *fake) Wait() (int, syscall.WaitStatus, error) {
	if len(f.waiting) == 0 {
		return 0, 0, syscall.ECHILD
	}
	c := f.waiting[0]
	f.waiting = f.waiting[1:]
	return c.pid, c.ws, c.err
}

// frames reads what was sent back, the streams of each command joined and times blanked.
func (f *fake) frames(t *testing.T) []string {
	t.Helper()
	var got []string
	r := NewFrameReader(bytes.NewReader(f.sent.Bytes()))
	for {
		fr, err := r.Next()
		if err == io.EOF {
			slices.SortStableFunc(got, func(a, b string) int { // stdout and stderr race with each other
				if a[0] == 'O' && b[0] == 'E' && a[1] == b[1] {
					return -1
				}
				if a[0] == 'E' && b[0] == 'O' && a[1] == b[1] {
					return 1
				}
				return 0
			})
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		s := string(fr.Data)
		if fr.Kind == Exit {
			var e Exited
			json.Unmarshal(fr.Data, &e)
			s = fmt.Sprintf("code %d signal %d", e.Code, e.Signal)
		}
		got = append(got, fmt.Sprintf("%c%d %s", fr.Kind, fr.Cmd, s))
	}
}

func TestRun(t *testing.T) {
	f := &fake{
		job: Job{
			Hostname: "h", Port: "/dev/p", Collect: []string{"var/*.txt", "nosuch"},
			PortMods: []Module{{Name: "virtio", Path: "/m/virtio.ko"}},
			Modules:  []Module{{Name: "a", Path: "/m/a.ko", Params: "x=1"}, {Name: "b", Path: "/m/b.ko"}, {Name: "c", Path: "/m/c.ko"}},
			Commands: []Command{{Args: []string{"/init", "x"}, Env: []string{"K=V"}}, {Args: []string{"/crash"}}, {Args: []string{"/nosuch"}}, {}},
		},
		fail: map[string]error{
			"load /m/b.ko": syscall.EEXIST, "load /m/c.ko": syscall.ENOEXEC, "start /nosuch": syscall.ENOENT,
			"mount tracefs /sys/kernel/tracing": syscall.ENODEV,
		},
		files:  fstest.MapFS{"var/a.txt": {Data: []byte("AAA"), Mode: 0o640}, "var/b.txt": {Mode: 0o600}, "var/c": {}},
		status: map[string]syscall.WaitStatus{"/init": 3 << 8, "/crash": 11},
	}
	if err := Run(f); err != nil {
		t.Fatal(err)
	}
	wantFrames := []string{
		`H0 {"Release":"6.1.0","Uptime":1.5}`,
		"L0 mount /sys/kernel/tracing: no such device",
		"L0 load module c: exec format error",
		"S0 ", "O0 /init x", "E0 K=V", "X0 code 3 signal 0",
		"S1 ", "O1 /crash", "E1 TMPDIR=/tmp", "X1 code 139 signal 11",
		"S2 ", "L0 run /nosuch: no such file or directory", "X2 code 127 signal 0",
		"S3 ", "L0 run: empty command", "X3 code 127 signal 0",
		`F0 {"Name":"var/a.txt","Mode":416}`, "D0 AAA",
		`F0 {"Name":"var/b.txt","Mode":384}`,
		"L0 collect nosuch: file does not exist",
		"Z0 ",
	}
	if diff := cmp.Diff(wantFrames, f.frames(t)); diff != "" {
		t.Error(diff)
	}
	wantCalls := []string{
		"load /m/virtio.ko", "port /dev/p", "up lo", "hostname h", "load /m/a.ko x=1", "load /m/b.ko", "load /m/c.ko",
		"start /init x", "start /crash", "start /nosuch", "close port", "power off",
	}
	if diff := cmp.Diff(wantCalls, f.calls[len(mounts):]); diff != "" {
		t.Error(diff)
	}
	if f.calls[0] != "mount proc /proc" {
		t.Error("first:", f.calls[0])
	}
}

func TestRunFails(t *testing.T) {
	for _, call := range []string{"mount proc /proc", "read " + JobFile, "port "} {
		t.Run(call, func(t *testing.T) {
			f := &fake{fail: map[string]error{call: syscall.EIO}}
			if err := Run(f); !errors.Is(err, syscall.EIO) {
				t.Error(err)
			}
			if said := f.calls[len(f.calls)-2]; !strings.Contains(said, "input/output error") {
				t.Error("says", said)
			}
			if last := f.calls[len(f.calls)-1]; last != "power off" {
				t.Error("ends with", last)
			}
		})
	}
}

// TestHandOver: commands run when PID 1 has become the job's init, and not at all if it could not.
func TestHandOver(t *testing.T) {
	job := Job{Port: "/dev/p", Init: Command{Args: []string{"/sbin/init"}}, Mounts: []Mount{{"/dev/vda", "/host", "ext4", ""}}, Commands: []Command{{Args: []string{"/x"}}}, Serve: true}
	for _, c := range []struct {
		fail map[string]error
		job  Job
		want []string
	}{
		{nil, Job{Port: job.Port, Init: job.Init, Mounts: job.Mounts, Commands: job.Commands}, []string{"hand over", "start /x", "close port", "power off"}},
		{map[string]error{"hand over": syscall.ENOENT}, job, []string{"hand over", "close port", "power off"}},
	} {
		f := &fake{fail: c.fail, job: c.job}
		if err := Run(f); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, f.calls[len(f.calls)-len(c.want):]); diff != "" {
			t.Error(diff)
		}
	}
}

func TestFrameSplit(t *testing.T) {
	var buf bytes.Buffer
	data := bytes.Repeat([]byte("0123456789"), 20000)
	w := NewFrameWriter(&buf)
	w.Send(Stdout, 7, data)
	w.Send(Beat, 0, nil)
	r := NewFrameReader(&buf)
	var got []byte
	for range 4 {
		f, err := r.Next()
		if err != nil || f.Kind != Stdout || f.Cmd != 7 {
			t.Fatal(f.Kind, f.Cmd, err)
		}
		got = append(got, f.Data...)
	}
	if !bytes.Equal(got, data) {
		t.Error("data differs")
	}
	if f, err := r.Next(); err != nil || f.Kind != Beat {
		t.Error(f, err)
	}
}

func TestFrameErrors(t *testing.T) {
	for in, want := range map[string]string{
		"\xfaO\x00\x00\x05\x00\x00\x00abc": "guest frame at 0x0: unexpected EOF",
		"\xfaO\x00":                        "guest frame at 0x0: unexpected EOF",
		"garbage!":                         "guest frame at 0x0: bad head 67 61 72 62 61 67 65 21",
		"\xfaB\x00\x00\x00\x00\x00\x00\xfaO\x00\x00\xff\xff\xff\xff": "guest frame at 0x8: bad head fa 4f 00 00 ff ff ff ff",
	} {
		r := NewFrameReader(strings.NewReader(in))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func FuzzFrames(f *testing.F) {
	var buf bytes.Buffer
	w := NewFrameWriter(&buf)
	w.Send(Stdout, 1, []byte("x"))
	w.Send(Done, 0, nil)
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewFrameReader(bytes.NewReader(b))
		for {
			if _, err := r.Next(); err != nil {
				return
			}
		}
	})
}
