package keep

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/fathom-trace/fathom/lab/guest"
)

// Spec is what a keeper is told to do.
type Spec struct {
	Guests  Guests
	Name    string
	Options guest.Options
	While   int  // end with this process; 0 for a guest that stays until it is taken down
	Disk    bool // Options.RootDisk was called
}

// keepWord is what the keeper waits for once the guest is up: until then it belongs to who started it.
const keepWord = "keep\n"

// Start boots a guest and leaves it to a keeper. command is how this program becomes one: it calls [Main] with its
// standard input and output. console, which may be nil, gets the guest's console while it boots. If this process dies or
// ctx ends before Start returns, nothing stays.
func Start(ctx context.Context, command []string, s Spec, console io.Writer) error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for who asked, not for the keeper
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { stdin.Close() }) // the keeper takes that for our end
	defer stop()
	if _, err := stdin.Write(append(spec, '\n')); err != nil {
		return errors.Join(fmt.Errorf("start keeper: %w", err), cmd.Wait())
	}
	r := json.NewDecoder(bufio.NewReader(stdout))
	for {
		var n news
		if err := r.Decode(&n); err != nil {
			werr := cmd.Wait()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("start keeper: it ended early: %w", errors.Join(err, werr))
		}
		switch {
		case n.Err != nil:
			cmd.Wait()
			return n.Err.error()
		case n.Ready:
			if _, err := io.WriteString(stdin, keepWord); err != nil {
				return fmt.Errorf("start keeper: %w", err)
			}
			return cmd.Process.Release()
		case console != nil:
			console.Write(n.Console)
		}
	}
}

// news is a line of a keeper's standard output while its guest boots.
type news struct {
	Console []byte   `json:",omitempty"`
	Ready   bool     `json:",omitempty"`
	Err     *failure `json:",omitempty"`
}

// failure is an error on its way from one process to another.
type failure struct {
	Text  string
	Setup *guest.SetupError `json:",omitempty"`
	Panic *guest.PanicError `json:",omitempty"`
	Hang  *guest.HangError  `json:",omitempty"`
	Errno syscall.Errno     `json:",omitempty"`
}

func fail(err error) *failure {
	f := &failure{Text: err.Error()}
	if s := (*guest.SetupError)(nil); errors.As(err, &s) {
		f.Setup = &guest.SetupError{What: s.What, Because: s.Because, Try: s.Try}
	}
	if p := (*guest.PanicError)(nil); errors.As(err, &p) {
		f.Panic = p
	}
	if h := (*guest.HangError)(nil); errors.As(err, &h) && h.Err == nil {
		f.Hang = h
	}
	errors.As(err, &f.Errno)
	return f
}

func (f *failure) error() error {
	switch {
	case f.Setup != nil:
		return f.Setup
	case f.Panic != nil:
		return f.Panic
	case f.Hang != nil:
		return f.Hang
	case f.Errno != 0:
		return remoteError{f.Text, f.Errno}
	}
	return errors.New(f.Text)
}

// remoteError is another process's error.
type remoteError struct {
	text string
	errn syscall.Errno
}

func (e remoteError) Error() string { return e.text }
func (e remoteError) Unwrap() error { return e.errn }

// Main is the keeper: it reads a [Spec] from in, boots, reports to out, and stays until the guest is over.
func Main(ctx context.Context, in *os.File, out *os.File) error {
	signal.Ignore(syscall.SIGPIPE) // who started us may go; what follows from that, the pipe's other half decides
	r := bufio.NewReader(in)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("keep guest: %w", err)
	}
	var s Spec
	if err := json.Unmarshal(line, &s); err != nil {
		return fmt.Errorf("keep guest: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := make(chan struct{}) // closed when the guest is to be kept
	go func() {
		if word, err := r.ReadString('\n'); err != nil || word != keepWord {
			cancel()
			return
		}
		close(asked)
	}()
	k := &keeper{spec: s, say: json.NewEncoder(out), asked: asked}
	err = k.run(ctx)
	if err != nil {
		k.report(news{Err: fail(err)})
	}
	return err
}
