// Package exercise has problems to practise on: each builds something out of namespaces, guests and processes, breaks it,
// tells a person what is seen, and checks what they found. It runs the fathom binary for all of that, as a person would,
// and nothing in fathom knows of it: names, addresses, ports and counts are drawn at random.
package exercise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/draw"
)

// LeaseKind is the kind of the lease of an exercise's folder; [Clean] is its cleaner.
const LeaseKind = "exercise"

// Exercise is one problem.
type Exercise struct {
	Name  string
	Title string
	Guest bool // it boots a kernel under QEMU; else it takes place on this machine, and takes root
	build func(ctx context.Context, b *Bench) (Problem, error)
}

// Problem is what was built.
type Problem struct {
	Text  string   // what is seen, and the question
	Hints []string // from vague to exact
	// Answer is right. Equal says if another one is, too; nil compares without regard to case and spaces.
	Answer string
	Equal  func(answer string) bool
	Why    string // how it is found, told at the end
}

// Check says if an answer is right.
func (p Problem) Check(answer string) bool {
	answer = strings.TrimSpace(answer)
	if p.Equal != nil && p.Equal(answer) {
		return true
	}
	return answer != "" && strings.EqualFold(answer, p.Answer)
}

// All are the exercises, the easy ones first.
func All() []Exercise {
	return []Exercise{
		{"who-reads", "a file that somebody keeps reading", false, whoReads},
		{"hist", "how large are most of a process's reads", false, histogram},
		{"closed-port", "one of many connections is refused", false, closedPort},
		{"leaking-socket", "a process runs out of descriptors", false, leakingSocket},
		{"who-kills", "signals that come from nowhere", false, whoKills},
		{"dropped-packet", "datagrams that do not arrive", false, droppedPacket},
		{"loopback-source", "a loopback address on the wire", false, loopbackSource},
		{"lost-address", "an address that goes away again and again", false, lostAddress},
		{"vanished-pin", "a pin that its maker sees and nobody else", false, vanishedPin},
		{"silent-xsk", "an AF_XDP socket that receives nothing", false, silentXSK},
		{"oops", "an oops to decode", true, decodeOops},
		{"slow-interrupt", "an interrupt handler that takes too long", true, slowInterrupt},
		{"stuck-work", "a work item that does not end", true, stuckWork},
		{"deadlock", "a deadlock in a dump", true, deadlock},
	}
}

// Find gives an exercise by name.
func Find(name string) (Exercise, bool) {
	all := All()
	i := slices.IndexFunc(all, func(e Exercise) bool { return e.Name == name })
	if i < 0 {
		return Exercise{}, false
	}
	return all[i], true
}

// Bench is what an exercise is built on. Close takes all of it down.
type Bench struct {
	Dir string // folder of files for the person

	*draw.Deck
	fathom string // the binary
	leases lease.Dir
	own    *lease.Lease
	names  []string // labs and guests
	start  chan func()
	procs  []*exec.Cmd
}

// NewBench makes an empty bench. fathom is the path of the binary; seed makes what is drawn the same again.
func NewBench(fathom string, leases lease.Dir, seed uint64) (*Bench, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-%x", folderPrefix, os.Getpid(), rand.Uint64()))
	own, err := leases.New(LeaseKind, filepath.Base(dir), dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, errors.Join(err, own.Release())
	}
	b := &Bench{Dir: dir, fathom: fathom, leases: leases, own: own, Deck: draw.New(seed),
		start: make(chan func())}
	go func() { // children die with the thread that started them: it must stay
		runtime.LockOSThread()
		for f := range b.start {
			f()
		}
		runtime.UnlockOSThread()
	}()
	return b, nil
}

const folderPrefix = "fathom-try-"

// Clean is the lease's cleaner of folders. Processes died with their maker, labs and guests have leases of their own.
func Clean(r lease.Record) error {
	var dir string
	if err := json.Unmarshal(r.Data, &dir); err != nil {
		return err
	}
	if !strings.HasPrefix(filepath.Base(dir), folderPrefix) {
		return fmt.Errorf("%s is no folder of an exercise", dir)
	}
	return os.RemoveAll(dir)
}

// Build builds an exercise. What was built goes with the bench, also if it fails.
func (e Exercise) Build(ctx context.Context, b *Bench) (Problem, error) {
	p, err := e.build(ctx, b)
	if err != nil {
		return p, fmt.Errorf("build exercise %s: %w", e.Name, err)
	}
	return p, nil
}

// Close ends the processes and takes labs, guests and files down.
func (b *Bench) Close() error {
	var errs []error
	for _, p := range b.procs {
		p.Process.Kill()
	}
	for _, p := range b.procs {
		p.Wait() // killed: its error is no news
	}
	close(b.start)
	for _, name := range slices.Backward(b.names) {
		_, err := b.Run(context.Background(), "lab", "down", name)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, os.RemoveAll(b.Dir), b.own.Release())...)
}

// Run runs fathom and gives its standard output.
func (b *Bench) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.fathom, args...)
	cmd.Dir = b.Dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("fathom %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// Lab makes a network that goes with this process, and gives its name.
func (b *Bench) Lab(ctx context.Context, text string) (string, error) {
	name := b.name()
	b.names = append(b.names, name)
	_, err := b.Run(ctx, "lab", "up", "--name", name, "--while", strconv.Itoa(os.Getpid()), text)
	if err != nil {
		b.names = b.names[:len(b.names)-1]
	}
	return name, err
}

// Guest boots a guest that goes with this process, and gives its name.
func (b *Bench) Guest(ctx context.Context, flags ...string) (string, error) {
	name := b.name()
	args := append([]string{"lab", "boot", "--keep", name, "--while", strconv.Itoa(os.Getpid())}, flags...)
	if _, err := b.Run(ctx, args...); err != nil {
		return "", err
	}
	b.names = append(b.names, name)
	return name, nil
}

func (b *Bench) name() string { return "try-" + b.Word() + strconv.Itoa(100+b.IntN(900)) }

// Actor starts a part of an exercise as a process of its own, under a name of its own, in a host of a lab if that is given.
// It ends with this process.
func (b *Bench) Actor(comm, lab, host string, args ...string) (pid int, err error) {
	path := filepath.Join(b.Dir, comm)
	if err := os.Symlink(b.fathom, path); err != nil && !errors.Is(err, os.ErrExist) {
		return 0, err
	}
	line := append([]string{path, "lab", ActVerb}, args...)
	if host != "" {
		line = append([]string{b.fathom, "lab", "exec", "--lab", lab, host, "--"}, line...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir = b.Dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envOwner, os.Getpid()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if args[0] == actPin {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	done := make(chan error)
	b.start <- func() { done <- cmd.Start() }
	if err := <-done; err != nil {
		return 0, fmt.Errorf("start %s: %w", comm, err)
	}
	b.procs = append(b.procs, cmd)
	return cmd.Process.Pid, nil
}

// await waits until a file that an actor writes says what ok wants, and removes it.
func (b *Bench) await(ctx context.Context, file string, ok func(text string) bool) error {
	for late := time.After(20 * time.Second); ; {
		if text, err := os.ReadFile(file); err == nil && ok(string(text)) {
			return os.Remove(file)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			return fmt.Errorf("wait for %s: %w", filepath.Base(file), os.ErrDeadlineExceeded)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
