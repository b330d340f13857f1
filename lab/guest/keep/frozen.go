package keep

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
)

// piece is a run of physical memory; a client of freeze asks for one a line.
type piece struct{ Addr, Size uint64 }

// Frozen is a guest that stands still until Thaw, or until this process ends. It is for one goroutine.
type Frozen struct {
	Head string // path of an ELF core with the notes of a dump, registers included, and next to no memory

	name string
	save func(piece) (file string, err error) // has QEMU write memory to a file
	thaw func()
	runs [][2]uint64
	read map[uint64][]byte // by its address, which is a multiple of pieceSize
}

// pieceSize is how much is read at once: what a first page touches is a few hundred of these, half of them in a row, where
// rowPieces are read together. maxPieces bounds what is kept, 32 MiB.
const pieceSize, rowPieces, maxPieces = 64 << 10, 8, 512

// Freeze stops the guest.
func (c Client) Freeze(ctx context.Context) (*Frozen, error) {
	conn, r, end, err := c.dial(ctx, call{Op: opFreeze})
	if err != nil {
		return nil, err
	}
	out, err := c.reply(ctx, r)
	if err != nil {
		end()
		return nil, err
	}
	f := &Frozen{Head: out.Text, name: "guest " + c.Info.Name, runs: c.Info.Memory(), read: map[uint64][]byte{}}
	f.save = func(p piece) (string, error) {
		if err := json.NewEncoder(conn).Encode(p); err != nil {
			return "", err
		}
		out, err := c.reply(ctx, r)
		return out.Text, err
	}
	f.thaw = func() {
		if u, ok := conn.(*net.UnixConn); ok && u.CloseWrite() == nil {
			io.Copy(io.Discard, r) // the keeper closes when the guest goes on: who looks next finds it running
		}
		end()
	}
	return f, nil
}

// Thaw lets the guest go on if it ran before.
func (f *Frozen) Thaw() { f.thaw() }

// Memory is where the guest has memory: beginnings and ends.
func (f *Frozen) Memory() [][2]uint64 { return f.runs }

// ReadPhys fills p from a physical address, through QMP: nothing in the guest is needed for it, and its gdb stub stays free.
func (f *Frozen) ReadPhys(p []byte, addr uint64) error {
	for len(p) > 0 {
		b, err := f.piece(addr)
		if err != nil {
			return err
		}
		n := copy(p, b[addr%pieceSize:])
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// piece gives the piece that an address is in.
func (f *Frozen) piece(addr uint64) ([]byte, error) {
	at := addr &^ (pieceSize - 1)
	if b := f.read[at]; uint64(len(b)) > addr-at {
		return b, nil
	}
	size := uint64(0)
	for _, r := range f.runs {
		if addr >= r[0] && addr < r[1] {
			size = min(pieceSize, r[1]-at)
			if f.read[at-pieceSize] != nil {
				size = min(rowPieces*pieceSize, r[1]-at)
			}
		}
	}
	if size == 0 {
		return nil, fmt.Errorf("%s has no memory at %#x", f.name, addr)
	}
	file, err := f.save(piece{at, size})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	b, err := os.ReadFile(file)
	if err == nil && uint64(len(b)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("memory of %s at %#x: %w", f.name, at, err)
	}
	if len(f.read) >= maxPieces {
		clear(f.read)
	}
	for i := uint64(0); i < size; i += pieceSize {
		f.read[at+i] = b[i:min(i+pieceSize, size)]
	}
	return f.read[at], nil
}
