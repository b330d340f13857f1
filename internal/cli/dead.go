package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/lab/guest/keep"
	"github.com/fathom-trace/fathom/vmcore"
)

// deadFlags say which kernel is asked that is not this one.
type deadFlags struct {
	file  string
	parts []string // further files of a split dump
	guest string   // a live guest, which stands still meanwhile
}

func (f deadFlags) given() bool { return f.file != "" || f.guest != "" }

// open opens the kernel; source says in a line what it is read from. done closes the files, or lets the guest go on.
func (f deadFlags) open(ctx context.Context) (t kernel.Target, source string, done func(), err error) {
	switch {
	case f.file != "" && f.guest != "":
		return nil, "", nil, usageError{"fathom", errors.New("a dump or a guest: not both")}
	case f.guest != "":
		return openGuest(ctx, f.guest)
	}
	return openDump(f.file, f.parts)
}

// openDump opens a dump and the kernel in it.
func openDump(name string, parts []string) (t kernel.Target, source string, done func(), err error) {
	var open []*os.File
	closeAll := func() {
		for _, f := range open {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	var files []vmcore.File
	for _, n := range append([]string{name}, parts...) {
		f, err := os.Open(n)
		if err != nil {
			return nil, "", nil, diag.NoInput("open dump", err)
		}
		open = append(open, f)
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, "", nil, diag.NoInput("open dump", err)
		}
		files = append(files, vmcore.File{R: f, Size: size})
	}
	c, err := vmcore.Open(files...)
	if err != nil {
		return nil, "", nil, diag.BadInput("read dump "+name, err)
	}
	d, err := dump.Open(c)
	if err != nil {
		return nil, "", nil, diag.BadInput("read the kernel in "+name, err)
	}
	return d, describe(name, c), closeAll, nil
}

// openGuest stops a guest that lab boot keeps, or that of a QEMU whose QMP socket is named by its path, and opens the kernel in its
// memory. done lets it go on.
func openGuest(ctx context.Context, name string) (t kernel.Target, source string, done func(), err error) {
	what := "read guest " + name
	var frozen *keep.Frozen
	var g keep.Client
	socket := strings.Contains(name, "/")
	if socket {
		frozen, err = keep.FreezeSocket(ctx, name)
	} else if g, err = findGuest(what, name); err == nil {
		frozen, err = g.Freeze(ctx)
		err = wrap(what, err)
	}
	var se *keep.SocketError
	switch {
	case errors.As(err, &se):
		return nil, "", nil, &diag.Error{What: what, Err: err, Try: []string{se.Try}}
	case err != nil:
		return nil, "", nil, err
	}
	done = frozen.Thaw
	defer func() {
		if err != nil {
			done()
		}
	}()
	f, err := os.Open(frozen.Head)
	if err != nil {
		return nil, "", done, wrap(what, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, "", done, wrap(what, err)
	}
	notes, err := vmcore.Open(vmcore.File{R: f, Size: st.Size()})
	if err != nil {
		return nil, "", done, wrap(what, err)
	}
	read, how := frozen.ReadPhys, "QMP"
	mem := frozen.Memory()
	if err := read(make([]byte, 1), mem[0][0]); err != nil { // QMP gives memory in files, and their disk may be full
		if socket {
			return nil, "", done, &diag.Error{What: what, Err: err, Try: []string{"make room in " + os.TempDir()}}
		}
		stub, serr := g.Stub()
		if serr != nil {
			return nil, "", done, &diag.Error{What: what, Err: errors.Join(err, serr), Try: []string{"make room where its folder is, or end the gdb that is connected to it"}}
		}
		read, how = stub.ReadPhys, "its gdb stub"
		done = func() {
			stub.Abandon()
			frozen.Thaw()
		}
	}
	d, err := dump.Open(notes.WithMemory(ranges(mem), read))
	if err != nil {
		return nil, "", done, wrap(what, err)
	}
	return d, fmt.Sprintf("guest %s: live, read through %s, stopped meanwhile", name, how), done, nil
}

func ranges(mem [][2]uint64) (out []vmcore.Range) {
	for _, m := range mem {
		out = append(out, vmcore.Range{Start: m[0], End: m[1]})
	}
	return out
}
