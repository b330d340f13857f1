// Package guest boots Linux kernels under QEMU and runs programs in them.
//
// A guest has no disk: its root is an initramfs made here, in which a static Go binary is /init (package pid1), with the
// files and kernel modules that were asked for. What the programs write comes back over a virtio port. Kernels are
// Debian's packages, downloaded once into a cache ([Cache]).
//
// A guest leaves nothing behind: sockets and initramfs are file descriptors without names, and QEMU dies with the process
// that started it, kill -9 included.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fathom-trace/fathom/lab/guest/initramfs"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"github.com/fathom-trace/fathom/lab/guest/qmp"
)

// Options say what to boot and what to run. Kernel and Init are needed; everything else has a default.
type Options struct {
	Kernel Kernel
	Init   string // path of the static binary that calls pid1.Main; often os.Executable()

	Commands []pid1.Command // run one after another; Args[0] may be "/init" for the Init binary itself
	Files    []File         // added to the initramfs
	Modules  []string       // loaded in order, with what they depend on; "name param=value" passes parameters
	Carry    []string       // modules put with their dependencies into /lib/modules, not loaded
	// ModuleFiles are modules of others, loaded after Modules: "path param=value".
	ModuleFiles []string
	Mounts      []pid1.Mount // made before the commands
	// View is what commands see: Root, Dir and Env, without Args. [Options.ShareHost] sets it; sessions start from it.
	View     pid1.Command
	takeOver pid1.Command // what becomes PID 1, of a disk
	// DumpOnPanic is a file that gets the guest's memory, as an ELF vmcore, when its kernel panics. The guest then has a
	// pvpanic device, and module qemu_fw_cfg so that the dump has its VMCOREINFO note.
	DumpOnPanic string
	// Serve keeps the guest up after the commands and lets it answer sessions ([Guest.Send], OnSession). It has the devices
	// of DumpOnPanic, and stands still after a panic.
	Serve     bool
	OnSession func(pid1.Frame) `json:"-"` // gets the guest's frames of sessions, valid during the call; must not block

	Collect []string // files of the guest to bring back at the end, filepath.Match patterns
	Linger  bool     // keep the guest up after the commands, until [Guest.Quit]

	Accel     Accel                 // BestAccel if empty
	Mem       int                   // MiB; 1024 if 0
	CPUs      int                   // 2 if 0
	Append    []string              // added to the kernel command line
	QEMUArgs  []string              // added to QEMU's: "-device", "virtio-net-pci,…"
	QEMU      string                // qemu-system-x86_64 if empty
	Pack      initramfs.Compression // of the initramfs; Plain boots fastest
	Hostname  string                // the kernel's name if empty
	Console   io.Writer             `json:"-"` // gets the console as it comes; may be nil
	Stdout    io.Writer             `json:"-"` // gets what commands write as it comes, besides the Result; may be nil
	Stderr    io.Writer             `json:"-"`
	HangAfter time.Duration         // silence of PID 1 and console that counts as a hang; if 0, 1 minute, 3 where instructions are emulated

	notes []string // what was found while the initramfs was made, for Result.Log
}

// File is one file put into a guest. Exactly one of Path, Data and Link is used, in that order.
type File struct {
	Name string      // where in the guest
	Path string      // contents are those of this file of the host
	Data []byte      // contents
	Link string      // it is a symbolic link to this
	Perm fs.FileMode // of Data; 0644 if 0. Path keeps its file's
}

// Result is what happened in a guest.
type Result struct {
	Commands []CommandResult   // those that ended, in order
	Files    map[string][]byte // by Options.Collect
	Log      []string          // what PID 1 could not do, such as load a module
	Release  string            // uname -r
	Dump     string            // Options.DumpOnPanic, if it was written
	Console  string            // the last 64 KiB
	Boot     time.Duration     // from the start of QEMU to PID 1's greeting
	Total    time.Duration     // to the end of QEMU
}

// CommandResult is how one command ended. Output is kept up to 64 MiB a stream; Options.Stdout gets all.
type CommandResult struct {
	Code   int // 128 + signal if a signal killed it
	Signal int
	Stdout string
	Stderr string
	Took   time.Duration // by the guest's clock
}

// PanicError is a guest whose kernel died.
type PanicError struct {
	Line    string // what the kernel said: "Kernel panic - not syncing: …"
	Console string // the end of the console
}

// Error is the kernel's line and the end of the console.
func (e *PanicError) Error() string {
	return "guest: " + e.Line + "\n" + indent(e.Console)
}

// HangError is a guest that fell silent, or was not done when its context ended.
type HangError struct {
	After   time.Duration
	Console string
	Err     error // the context's cause, or nil
}

// Error says for how long, and how the console ends.
func (e *HangError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("guest: not done after %s: %v\n%s", e.After.Round(time.Second), e.Err, indent(e.Console))
	}
	return fmt.Sprintf("guest: hangs: silent for %s\n%s", e.After.Round(time.Second), indent(e.Console))
}

// Unwrap returns the context's cause.
func (e *HangError) Unwrap() error { return e.Err }

// EndError is a guest that ended before its job was done, without a panic: QEMU refused its options, or was killed.
type EndError struct {
	Exit    error  // of QEMU; nil if it ended well
	QEMU    string // what QEMU wrote
	Console string
}

// Error is all there is to know.
func (e *EndError) Error() string {
	s := "guest: ended before its commands did"
	if e.Exit != nil {
		s += ": qemu: " + e.Exit.Error()
	}
	if e.QEMU != "" {
		s += "\n" + indent(e.QEMU)
	}
	if e.Console != "" {
		s += "\n" + indent(e.Console)
	}
	return s
}

// indent shows the last lines of a text, set off from ours.
func indent(s string) string {
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(s, "\r", ""), "\n"), "\n")
	const most = 60
	if len(lines) > most {
		lines = append([]string{"…"}, lines[len(lines)-most:]...)
	}
	return "  | " + strings.Join(lines, "\n  | ")
}

// Run boots a guest, runs the commands and waits for the end. An exit code other than 0 is no error; a panic, a hang or an
// early end is one, and the Result holds what came before it.
func Run(ctx context.Context, o Options) (Result, error) {
	g, err := Start(ctx, o)
	if err != nil {
		return Result{}, err
	}
	return g.Wait()
}

// Guest is a running guest. It ends when its commands have, when its context does, or by Quit; Wait must be called.
type Guest struct {
	opts    Options
	started time.Time
	ctx     context.Context
	vm      *vm
	console *ring
	qmp     *qmp.Client
	ready   chan struct{} // closed at the greeting
	ended   chan struct{} // closed when PID 1 says that the job is done
	done    chan struct{} // closed when all is over; res and err are set then

	dumpErr  atomic.Pointer[error] // of the dump on panic; nil while there was none
	patient  atomic.Bool           // silence is no hang any more
	panicked chan struct{}         // closed after a panic, once the dump is written
	send     *pid1.FrameWriter

	state *collector
	res   Result
	err   error
}

// Start boots a guest and returns while it boots. The guest ends with ctx.
func Start(ctx context.Context, o Options) (*Guest, error) {
	o.defaults()
	if err := o.dumpDevices(); err != nil {
		return nil, err
	}
	img, err := buildImage(&o)
	if err != nil {
		return nil, fmt.Errorf("build initramfs: %w", err)
	}
	defer img.Close()
	g := &Guest{opts: o, ctx: ctx, started: time.Now(), console: newRing(o.Console), ready: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{}), panicked: make(chan struct{})}
	g.state = newCollector(&g.opts, func() { close(g.ready) }, func() { close(g.ended) })
	if g.vm, err = startVM(&g.opts, img, g.console); err != nil {
		return nil, err
	}
	if g.qmp, err = qmp.New(ctx, g.vm.qmp); err != nil {
		g.vm.kill()
		exit := g.vm.wait()
		return nil, errors.Join(err, &EndError{Exit: exit, QEMU: g.vm.stderr.String(), Console: g.console.String()})
	}
	g.send = pid1.NewFrameWriter(g.vm.port)
	if o.DumpOnPanic != "" || o.Serve {
		go g.onPanic()
	}
	go g.follow()
	return g, nil
}

const defaultQEMU = "qemu-system-x86_64"

func (o *Options) defaults() {
	if o.Accel == "" {
		o.Accel = BestAccel()
	}
	if o.Mem == 0 {
		o.Mem = 1024
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.QEMU == "" {
		o.QEMU = defaultQEMU
	}
	if o.Hostname == "" {
		o.Hostname = strings.ReplaceAll(o.Kernel.Name, ".", "-")
	}
	if o.HangAfter == 0 {
		o.HangAfter = time.Minute
		if o.Accel != KVM { // a kernel unpacks itself for as long as that on a machine with more to do
			o.HangAfter = 3 * time.Minute
		}
	}
}

// Ready is closed when PID 1 is up; Done when the guest is over, and Wait will not block.
func (g *Guest) Ready() <-chan struct{} { return g.ready }

// Done is closed when the guest is over.
func (g *Guest) Done() <-chan struct{} { return g.done }

// QMP is the guest's machine protocol, for dump-guest-memory, system_powerdown, inject-nmi…
func (g *Guest) QMP() *qmp.Client { return g.qmp }

// Ended is closed when all commands have ended and all files are here: for guests that linger.
func (g *Guest) Ended() <-chan struct{} { return g.ended }

// PID is QEMU's process id.
func (g *Guest) PID() int { return g.vm.cmd.Process.Pid }

// Console is the last 64 KiB of the console so far.
func (g *Guest) Console() string { return g.console.String() }

// Panicked is closed after a panic, once the dump is written, of a guest that serves or dumps.
func (g *Guest) Panicked() <-chan struct{} { return g.panicked }

// Patient says that silence is no hang from now on: somebody may have stopped the guest to look at it.
func (g *Guest) Patient() { g.patient.Store(true) }

// Send sends a frame of a session to a guest that serves. It waits while the guest does not take it.
func (g *Guest) Send(kind pid1.Kind, session uint16, data []byte) error {
	return g.send.Send(kind, session, data)
}

// Quit ends QEMU at once, whatever the guest does. Wait then returns no error for a guest whose commands are done.
func (g *Guest) Quit() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := g.qmp.Execute(ctx, "quit", nil); err != nil && !errors.Is(err, qmp.ErrClosed) {
		g.vm.kill()
	}
}

// Wait waits for the end.
func (g *Guest) Wait() (Result, error) {
	<-g.done
	return g.res, g.err
}

// follow reads frames until QEMU ends, and decides what that end was.
func (g *Guest) follow() {
	defer close(g.done)
	over := make(chan struct{})
	cause := make(chan error, 1)
	go func() { cause <- g.guard(over) }()
	frameErr := g.state.read(g.vm.port)
	if frameErr != nil {
		g.vm.kill()
	}
	exit := g.vm.wait()
	close(over)
	killed := <-cause
	g.qmp.Close()
	g.res = g.state.result()
	g.res.Console, g.res.Total = g.console.String(), time.Since(g.started)
	if !g.state.helloAt.IsZero() {
		g.res.Boot = g.state.helloAt.Sub(g.started)
	}
	panicked := panicLine(g.res.Console)
	if err := g.dumpErr.Load(); err != nil && *err == nil {
		g.res.Dump = g.opts.DumpOnPanic
	} else if err != nil {
		defer func() { g.err = errors.Join(g.err, *err) }()
	}
	switch {
	case killed == nil && panicked != "":
		g.err = &PanicError{Line: panicked, Console: g.res.Console}
	case killed != nil:
		g.err = killed
	case g.state.done:
	case frameErr != nil:
		g.err = errors.Join(frameErr, &EndError{Console: g.res.Console})
	default:
		g.err = &EndError{Exit: exit, QEMU: g.vm.stderr.String(), Console: g.res.Console}
	}
}

// guard kills the guest when its context ends or when it falls silent, and says why. It returns nil once over is closed.
func (g *Guest) guard(over chan struct{}) error {
	tick := time.NewTicker(min(time.Second, g.opts.HangAfter/4))
	defer tick.Stop()
	for {
		select {
		case <-over:
			return nil
		case <-g.ctx.Done():
			g.vm.kill()
			return &HangError{After: time.Since(g.started), Console: g.console.String(), Err: context.Cause(g.ctx)}
		case <-tick.C:
			last := max(g.state.last.Load(), g.console.last.Load(), g.started.UnixNano())
			if silent := time.Since(time.Unix(0, last)); silent > g.opts.HangAfter && !g.patient.Load() {
				g.vm.kill()
				return &HangError{After: silent, Console: g.console.String()}
			}
		}
	}
}
