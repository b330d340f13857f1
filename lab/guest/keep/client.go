package keep

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/kernel/remote"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// Client speaks to the keeper of a guest; every call has a connection of its own.
type Client struct{ Info Info }

// dial connects and sends the call; ctx ends the connection.
func (c Client) dial(ctx context.Context, in call) (net.Conn, *bufio.Reader, func(), error) {
	conn, err := dial(filepath.Join(c.Info.Folder, ctlSocket))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, fmt.Errorf("guest %s still boots", c.Info.Name)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("guest %s: %w", c.Info.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	done := func() {
		stop()
		conn.Close()
	}
	if err := json.NewEncoder(conn).Encode(in); err != nil {
		done()
		return nil, nil, nil, fmt.Errorf("guest %s: %w", c.Info.Name, err)
	}
	return conn, bufio.NewReaderSize(conn, 64<<10), done, nil
}

// ask is a call that is answered by one line.
func (c Client) ask(ctx context.Context, in call) (out reply, err error) {
	_, r, done, err := c.dial(ctx, in)
	if err != nil {
		return out, err
	}
	defer done()
	return c.reply(ctx, r)
}

func (c Client) reply(ctx context.Context, r io.Reader) (out reply, err error) {
	if err := json.NewDecoder(r).Decode(&out); err != nil {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		return out, fmt.Errorf("guest %s has ended: %w", c.Info.Name, err)
	}
	if out.Err != nil {
		return out, out.Err.error()
	}
	return out, nil
}

// Status asks how the guest is.
func (c Client) Status(ctx context.Context) (Status, error) {
	out, err := c.ask(ctx, call{Op: opStatus})
	if err != nil || out.Status == nil {
		return Status{}, err
	}
	return *out.Status, nil
}

// Dump has QEMU write the guest's memory to a file, whose path must be absolute.
func (c Client) Dump(ctx context.Context, file string, o guest.DumpOptions) error {
	_, err := c.ask(ctx, call{Op: opDump, File: file, Dump: o})
	return err
}

// SysRq presses Alt-SysRq and a letter, and gives what the kernel said.
func (c Client) SysRq(ctx context.Context, letter string) (string, error) {
	out, err := c.ask(ctx, call{Op: opSysRq, Letter: letter})
	return out.Text, err
}

// Down ends the guest as if its power were cut, and waits until its keeper has gone.
func (c Client) Down(ctx context.Context) error {
	_, r, done, err := c.dial(ctx, call{Op: opDown})
	if err != nil {
		return err
	}
	defer done()
	io.Copy(io.Discard, r) // however it ends, the keeper is gone
	return context.Cause(ctx)
}

// Console writes the end of the console so far, and goes on until ctx or the guest ends.
func (c Client) Console(ctx context.Context, w io.Writer) error {
	_, r, done, err := c.dial(ctx, call{Op: opConsole})
	if err != nil {
		return err
	}
	defer done()
	if _, err := io.Copy(w, r); err != nil && ctx.Err() == nil {
		return fmt.Errorf("guest %s: %w", c.Info.Name, err)
	}
	return nil
}

// stubTime bounds the greeting of a stub: it serves one at a time, and lets others wait.
const stubTime = 5 * time.Second

// Stub connects to the guest's gdb stub, which stops the guest. What is to happen with it then is the caller's.
func (c Client) Stub() (*remote.Client, error) {
	conn, err := dial(c.Info.GDB())
	if err != nil {
		return nil, fmt.Errorf("gdb stub of guest %s: %w", c.Info.Name, err)
	}
	conn.SetDeadline(time.Now().Add(stubTime))
	k, err := remote.New(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("gdb stub of guest %s: somebody else is connected", c.Info.Name)
	}
	if err != nil {
		return nil, err
	}
	return k, k.SetDeadline(time.Time{})
}

// IO is what a session reads and writes. Nil is empty or discarded. Signals that come are sent on to the command.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal
}

// Run runs a command and gives its exit code. Args[0] is a path in the guest; what the command sees is the View of Info.
func (c Client) Run(ctx context.Context, args []string, dir string, env []string, s IO) (pid1.Exited, error) {
	cmd := c.Info.View
	cmd.Args, cmd.Env = args, append(append([]string{}, cmd.Env...), env...)
	if dir != "" {
		cmd.Dir = dir
	}
	return c.session(ctx, pid1.Request{Op: pid1.OpRun, Command: cmd}, s)
}

// Put makes a file in the guest.
func (c Client) Put(ctx context.Context, r io.Reader, name string, mode fs.FileMode) error {
	_, err := c.session(ctx, pid1.Request{Op: pid1.OpPut, Root: c.Info.View.Root, Name: name, Mode: uint32(mode.Perm())}, IO{Stdin: r})
	return err
}

// Get reads a file of the guest.
func (c Client) Get(ctx context.Context, w io.Writer, name string) (fs.FileMode, error) {
	e, err := c.session(ctx, pid1.Request{Op: pid1.OpGet, Root: c.Info.View.Root, Name: name}, IO{Stdout: w})
	return fs.FileMode(e.Mode), err
}

// Load puts a module into the guest and loads it. err is what the kernel says: EEXIST if it is loaded.
func (c Client) Load(ctx context.Context, name string, module io.Reader, params string) error {
	file := pid1.ModuleDir + "/" + name + ".ko"
	if _, err := c.session(ctx, pid1.Request{Op: pid1.OpPut, Name: file, Mode: 0o600}, IO{Stdin: module}); err != nil {
		return err
	}
	_, err := c.session(ctx, pid1.Request{Op: pid1.OpLoad, Name: file, Params: params}, IO{})
	return err
}

// Unload unloads a module.
func (c Client) Unload(ctx context.Context, name string) error {
	_, err := c.session(ctx, pid1.Request{Op: pid1.OpDrop, Name: name}, IO{})
	return err
}

// session runs one request to its end.
func (c Client) session(ctx context.Context, q pid1.Request, s IO) (e pid1.Exited, err error) {
	conn, r, done, err := c.dial(ctx, call{Op: opSession, Request: &q})
	if err != nil {
		return e, err
	}
	defer done()
	w, flow := pid1.NewFrameWriter(conn), pid1.NewFlow()
	defer flow.End()
	go feed(w, flow, s.Stdin)
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case sig := <-s.Signals:
				if n, ok := sig.(syscall.Signal); ok {
					w.Send(pid1.Signal, 0, pid1.U32(int(n)))
				}
			case <-over:
				return
			}
		}
	}()
	frames := pid1.NewFrameReader(r)
	for {
		f, err := frames.Next()
		if ctx.Err() != nil {
			return e, context.Cause(ctx)
		}
		if err != nil {
			return e, fmt.Errorf("guest %s has ended", c.Info.Name)
		}
		switch f.Kind {
		case pid1.Stdout, pid1.Stderr:
			to := s.Stdout
			if f.Kind == pid1.Stderr {
				to = s.Stderr
			}
			if to != nil {
				if _, err := to.Write(f.Data); err != nil {
					return e, err
				}
			}
			w.Send(pid1.Ack, 0, pid1.U32(len(f.Data)))
		case pid1.Ack:
			flow.Give(pid1.ParseU32(f.Data))
		case pid1.Exit:
			if err := json.Unmarshal(f.Data, &e); err != nil {
				return e, err
			}
			if e.Err != "" {
				return e, errors.New(e.Err)
			}
			return e, nil
		}
	}
}

// feed sends standard input as fast as the guest takes it.
func feed(w *pid1.FrameWriter, flow *pid1.Flow, in io.Reader) {
	defer w.Send(pid1.NoMore, 0, nil)
	if in == nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			m := flow.Take(len(b))
			if m == 0 {
				return
			}
			if w.Send(pid1.Input, 0, b[:m]) != nil {
				return
			}
			b = b[m:]
		}
		if err != nil {
			return
		}
	}
}
