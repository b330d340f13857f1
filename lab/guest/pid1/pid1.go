// Package pid1 is what runs as /init in a guest: it mounts what a Linux program expects, loads modules, runs the commands
// of a job one after another, sends their output and exit codes to the host, reaps orphans, and powers off; or, before that,
// answers what the host asks: run this, take that file.
//
// The binary that imports it is its own init: it calls [Main] if [IsInit] says so. Host and guest share the [Job] (a JSON
// file in the initramfs) and the [Frame] stream on a port.
package pid1

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Where the host puts things in the initramfs.
const (
	JobFile   = "/fathom/job.json"
	ModuleDir = "/fathom/modules"
)

// Job is what the host wants done.
type Job struct {
	Hostname string
	Port     string   // device the frames go to: /dev/vport0p1
	PortMods []Module // loaded before the port is opened
	Modules  []Module // in load order
	Mounts   []Mount  // made in order, after the modules are loaded
	Init     Command  // what PID 1 becomes when all is mounted; nothing if it has no Args
	Commands []Command
	Collect  []string // files to send to the host at the end, in filepath.Match patterns
	Linger   bool     // do not power off after the job; the host ends the guest
	Serve    bool     // and answer what it asks meanwhile
}

// Module is a module file in the guest.
type Module struct{ Name, Path, Params string }

// Mount is a file system that commands find: a folder that the host shares (Type 9p), or one seen at a second place
// (Type bind).
type Mount struct{ Source, Target, Type, Data string }

// Command is one program to run. Its standard input is empty.
type Command struct {
	Args []string // Args[0] is an absolute path
	Env  []string // added to PATH, HOME, TERM and TMPDIR
	Dir  string   // "/" if empty
	Root string   // what the command sees as /; the initramfs if empty
}

// System is what PID 1 asks of the kernel. [Linux] is the real one; tests have another.
type System interface {
	ReadFile(name string) ([]byte, error)
	Glob(pattern string) ([]string, error)
	Open(name string) (fs.File, error)
	Mkdir(dir string) error // with parents; it may exist
	Symlink(target, name string) error
	Mount(source, target, fstype, data string) error
	SetHostname(name string) error
	LinkUp(name string) error
	LoadModule(path, params string) error
	UnloadModule(name string) error
	OpenPort(name string) (io.ReadWriteCloser, error) // Close drains it
	Create(name string, mode fs.FileMode) (io.WriteCloser, error)
	Pipe() (r io.ReadCloser, w *os.File, err error)
	Start(c Command, stdin, stdout, stderr *os.File) (pid int, err error) // stdin may be nil: empty
	Kill(pid int, sig syscall.Signal) error                               // of a group, if negative
	Wait() (pid int, status syscall.WaitStatus, err error)                // any child
	Release() string
	Uptime() float64
	Complain(err error) // where someone may see it, while there is no port
	HandOver() error    // PID 1 becomes the job's Init
	PowerOff() error    // does not return, unless it fails
}

// mounts are made in this order. An older kernel may lack what is optional.
var mounts = []struct {
	source, target, fstype, data string
	optional                     bool
}{
	{"proc", "/proc", "proc", "", false},
	{"sysfs", "/sys", "sysfs", "", false},
	{"devtmpfs", "/dev", "devtmpfs", "", false},
	{"devpts", "/dev/pts", "devpts", "ptmxmode=0666", true},
	{"tmpfs", "/dev/shm", "tmpfs", "", true},
	{"tmpfs", "/tmp", "tmpfs", "", false},
	{"tmpfs", "/run", "tmpfs", "", false},
	{"securityfs", "/sys/kernel/security", "securityfs", "", true},
	{"debugfs", "/sys/kernel/debug", "debugfs", "", true},
	{"tracefs", "/sys/kernel/tracing", "tracefs", "", true},
	{"bpf", "/sys/fs/bpf", "bpf", "", true},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", "", true},
}

// links are what devtmpfs leaves to user space.
var links = []struct{ target, name string }{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
}

// baseEnv is what every command finds.
var baseEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "TMPDIR=/tmp"}

// environ is what every command finds, with a command's own in its place: a C library takes the first of a name.
func environ(own []string) []string {
	env := slices.DeleteFunc(slices.Clone(baseEnv), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(own, func(o string) bool { return strings.HasPrefix(o, key+"=") })
	})
	return append(env, own...)
}

// drain is how long output is awaited after a command ended, while its orphans hold the pipe.
const drain = 2 * time.Second

// IsInit reports that this process is PID 1 of a guest of ours, or does its work.
func IsInit() bool {
	if os.Getpid() != 1 && !isAgent() {
		return false
	}
	_, err := os.Stat(JobFile)
	return err == nil
}

// Main does the job and powers off. It returns only if even that fails; then the kernel panics, and the host knows.
func Main() error {
	if c, ok := initOf(Linux{}); ok && !isAgent() {
		return takeOver(c)
	}
	return Run(Linux{})
}

// Run does the job that sys has in [JobFile].
func Run(sys System) error {
	p := &process{sys: sys}
	if err := p.boot(); err != nil {
		err = fmt.Errorf("init: %w", err)
		sys.Complain(err)
		return errors.Join(err, sys.PowerOff())
	}
	stop := p.beat(time.Second)
	for _, err := range p.load(p.job.Modules) {
		p.log(err)
	}
	for _, m := range p.job.Mounts {
		if err := errors.Join(sys.Mkdir(m.Target), sys.Mount(m.Source, m.Target, m.Type, m.Data)); err != nil {
			p.log(fmt.Errorf("mount %s: %w", m.Target, err))
		}
	}
	if len(p.job.Init.Args) > 0 {
		if err := sys.HandOver(); err != nil {
			p.log(err)
			p.job.Linger, p.job.Serve, p.job.Commands = false, false, nil
		}
	}
	for i, c := range p.job.Commands {
		p.command(uint16(i), c)
	}
	p.collect()
	p.out.Send(Done, 0, nil)
	if p.job.Serve {
		p.serve()
	}
	for p.job.Linger {
		p.reap()
		time.Sleep(time.Second)
	}
	stop()
	p.port.Close()
	return sys.PowerOff()
}

type process struct {
	sys  System
	job  Job
	port io.ReadWriteCloser
	out  *FrameWriter
}

// boot mounts, reads the job, opens the port and greets. What only some commands need is logged if it fails.
func (p *process) boot() error {
	var logs []error
	for _, m := range mounts {
		err := errors.Join(p.sys.Mkdir(m.target), p.sys.Mount(m.source, m.target, m.fstype, m.data))
		if err != nil && !m.optional {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
		if err != nil {
			logs = append(logs, fmt.Errorf("mount %s: %w", m.target, err))
		}
	}
	for _, l := range links {
		logs = append(logs, p.sys.Symlink(l.target, l.name))
	}
	b, err := p.sys.ReadFile(JobFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &p.job); err != nil {
		return fmt.Errorf("%s: %w", JobFile, err)
	}
	logs = append(logs, p.load(p.job.PortMods)...)
	if p.port, err = p.sys.OpenPort(p.job.Port); err != nil {
		return errors.Join(append(logs, err)...)
	}
	p.out = NewFrameWriter(p.port)
	logs = append(logs, p.sys.LinkUp("lo"))
	if p.job.Hostname != "" {
		logs = append(logs, p.sys.SetHostname(p.job.Hostname))
	}
	p.out.SendJSON(Hello, 0, Greeting{Release: p.sys.Release(), Uptime: p.sys.Uptime()})
	for _, err := range logs {
		p.log(err)
	}
	return nil
}

func (p *process) log(err error) {
	if err != nil {
		p.out.Send(Log, 0, []byte(err.Error()))
	}
}

// beat tells the host every now and then that we live, until stop is called.
func (p *process) beat(every time.Duration) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.out.Send(Beat, 0, nil)
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// load loads modules, and goes on after one that fails: a command that needs it will say so.
func (p *process) load(mods []Module) (errs []error) {
	for _, m := range mods {
		if err := p.sys.LoadModule(m.Path, m.Params); err != nil && !errors.Is(err, syscall.EEXIST) {
			errs = append(errs, fmt.Errorf("load module %s: %w", m.Name, err))
		}
	}
	return errs
}

// command runs one command, streams what it writes, and sends its end.
func (p *process) command(i uint16, c Command) {
	p.out.Send(Start, i, nil)
	start := time.Now()
	ws, err := p.run(i, c)
	e := Exited{Code: ws.ExitStatus(), Secs: time.Since(start).Seconds()}
	switch {
	case err != nil:
		p.log(err)
		e.Code = 127
	case ws.Signaled():
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
	}
	p.out.SendJSON(Exit, i, e)
}

func (p *process) run(i uint16, c Command) (syscall.WaitStatus, error) {
	if len(c.Args) == 0 {
		return 0, errors.New("run: empty command")
	}
	c.Env = environ(c.Env)
	var streams [2]stream
	for n, kind := range []Kind{Stdout, Stderr} {
		r, w, err := p.sys.Pipe()
		if err != nil {
			return 0, fmt.Errorf("run %s: %w", c.Args[0], err)
		}
		defer w.Close()
		streams[n] = stream{r: r, w: w}
		streams[n].done = p.copy(r, kind, i)
	}
	pid, err := p.sys.Start(c, nil, streams[0].w, streams[1].w)
	for _, s := range streams {
		s.w.Close()
	}
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	ws, err := p.wait(pid)
	late := time.After(drain)
	for _, s := range streams {
		select {
		case <-s.done:
		case <-late: // an orphan holds the pipe; it goes on being copied
		}
	}
	return ws, err
}

type stream struct {
	r    io.ReadCloser
	w    *os.File
	done chan struct{}
}

// copy sends what r gives until its end.
func (p *process) copy(r io.ReadCloser, kind Kind, i uint16) chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				p.out.Send(kind, i, buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return done
}

// wait reaps children, adopted ones too, until pid is among them.
func (p *process) wait(pid int) (syscall.WaitStatus, error) {
	for {
		got, ws, err := p.sys.Wait()
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for %d: %w", pid, err)
		case got == pid:
			return ws, nil
		}
	}
}

// reap buries all children there are.
func (p *process) reap() {
	for {
		if _, _, err := p.sys.Wait(); err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func (p *process) collect() {
	for _, pattern := range p.job.Collect {
		names, err := p.sys.Glob(pattern)
		if err == nil && len(names) == 0 {
			err = fs.ErrNotExist
		}
		if err != nil {
			p.log(fmt.Errorf("collect %s: %w", pattern, err))
		}
		for _, name := range names {
			p.log(p.file(name))
		}
	}
}

// file sends one file. Its size is not said ahead: files of /proc and /sys have none.
func (p *process) file(name string) error {
	f, err := p.sys.Open(name)
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	if st.IsDir() {
		return nil
	}
	p.out.SendJSON(File, 0, FileHead{Name: name, Mode: uint32(st.Mode().Perm())})
	buf := make([]byte, MaxData)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			p.out.Send(Data, 0, buf[:n])
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("collect: %w", err)
		}
	}
}
