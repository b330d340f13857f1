package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/debuginfo/cfi"
	"github.com/fathom-trace/fathom/ir"
)

// Unwinds says if programs of the session unwind stacks: who runs it should tell Frames of the processes.
func (s *Session) Unwinds() bool {
	procs, rows := s.frameMaps()
	return procs != nil && rows != nil
}

func (s *Session) frameMaps() (procs, rows *ebpf.Map) {
	for m, km := range s.maps {
		switch m.Name {
		case ir.FrameProcs:
			procs = km
		case ir.FrameRows:
			rows = km
		}
	}
	return procs, rows
}

// ErrFrameRoom says that the rows of the processes are more than the programs have room for.
var ErrFrameRoom = errors.New("more call frame information than there is room for")

// Frames tells programs where the callers in processes are: the rows by address, for each process by its number, replace
// what was told before. They are written to the half of the map that is not in use, at least unless a program is at work
// since before the last change but one. Rows for which there is no room are left out, with ErrFrameRoom.
func (s *Session) Frames(all map[int][]cfi.Row) error {
	procs, rows := s.frameMaps()
	if procs == nil || rows == nil {
		return nil
	}
	half := rows.MaxEntries() / 2
	at := uint32(0)
	if s.framesHigh = !s.framesHigh; s.framesHigh {
		at = half
	}
	end := at + half
	var room error
	for pid, rs := range all {
		n := min(uint32(min(len(rs), math.MaxInt32)), end-at)
		if int(n) < len(rs) {
			room = ErrFrameRoom
		}
		if n > 0 {
			keys, values := make([]uint32, n), make([]byte, 0, int(n)*ir.FrameRowSize)
			for i, r := range rs[:n] {
				keys[i] = at + uint32(i)
				values = appendFrame(values, r)
			}
			if _, err := rows.BatchUpdate(keys, asRows(values), nil); err != nil {
				return fmt.Errorf("write call frames of process %d: %w", pid, err)
			}
		}
		if err := procs.Put(uint32(pid), [2]uint32{at, n}); err != nil {
			return fmt.Errorf("write call frames of process %d: %w", pid, err)
		}
		at += n
	}
	return room
}

// asRows cuts bytes into the values of a batch.
func asRows(b []byte) [][ir.FrameRowSize]byte {
	out := make([][ir.FrameRowSize]byte, len(b)/ir.FrameRowSize)
	for i := range out {
		copy(out[i][:], b[i*ir.FrameRowSize:])
	}
	return out
}

// appendFrame encodes a row. What the programs cannot follow ends the stack.
func appendFrame(b []byte, r cfi.Row) []byte {
	kind, flags, fp := byte(ir.FrameEnd), byte(0), int64(0)
	switch {
	case r.RA != cfi.Saved || r.RAOff != -8 || r.Off != int64(int32(r.Off)):
	case r.Base == cfi.SP:
		kind = ir.FrameOnSP
	case r.Base == cfi.FP:
		kind = ir.FrameOnFP
	}
	switch {
	case r.FP == cfi.Saved && r.FPOff == int64(int16(r.FPOff)):
		flags, fp = ir.FrameFPSaved, r.FPOff
	case r.FP != cfi.Same:
		flags = ir.FrameFPLost
	}
	if r.Signal {
		flags |= ir.FrameSignal
	}
	le := binary.LittleEndian
	b = le.AppendUint64(b, r.PC)
	b = le.AppendUint32(b, uint32(int32(r.Off)))
	b = le.AppendUint16(b, uint16(int16(fp)))
	return append(b, kind, flags)
}
