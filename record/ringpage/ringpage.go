// Package ringpage moves pages of the kernel's ring buffer, per_cpu/cpuN/trace_pipe_raw of a tracing instance, into a file:
// whole pages by splice, through a pipe, so that they are not copied through this process. What the pages hold is package
// traceevent's matter.
package ringpage

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// pipeSize is how much of the ring buffer one splice may take: the limit that ordinary users have, in bytes.
const pipeSize = 1 << 20

// Mover moves one CPU's pages. One goroutine may use it.
type Mover struct {
	raw, out int
	pipe     [2]int
	page     int
	inPipe   int64 // taken out of the ring, not yet written
	partial  []byte

	Moved int64 // bytes written to the file
}

// New moves from the descriptor raw, which must not block and stays the caller's. page is the size of a page of the ring
// buffer, in bytes. [Mover.To] says where to.
func New(raw, page int) (*Mover, error) {
	m := &Mover{raw: raw, out: -1, page: page, partial: make([]byte, page)}
	if err := unix.Pipe2(m.pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(m.pipe[1]), unix.F_SETPIPE_SZ, max(pipeSize, page)); err != nil && page > 64<<10 {
		m.Close()
		return nil, fmt.Errorf("set size of pipe: %w", err)
	}
	return m, nil
}

// To moves to the file out from now on, from its position on. It stays the caller's.
func (m *Mover) To(out int) { m.out = out }

// Close closes the pipe.
func (m *Mover) Close() error { return errors.Join(unix.Close(m.pipe[0]), unix.Close(m.pipe[1])) }

// Wait waits until there may be something to move: the instance's buffer_percent is reached, or the time is over.
func (m *Mover) Wait(most time.Duration) error {
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(m.raw), Events: unix.POLLIN}}, int(most.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for trace: %w", err)
	}
	return nil
}

// Move moves all whole pages that there are. An error of the file (ENOSPC) leaves the file with what was written before.
func (m *Mover) Move() error {
	for {
		if err := m.write(); err != nil {
			return err
		}
		n, err := unix.Splice(m.raw, nil, m.pipe[1], nil, pipeSize/m.page*m.page, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("take trace: %w", err)
		case n == 0:
			return nil
		}
		m.inPipe += n
	}
}

// write empties the pipe into the file.
func (m *Mover) write() error {
	for m.inPipe > 0 {
		n, err := unix.Splice(m.pipe[0], nil, m.out, nil, int(m.inPipe), unix.SPLICE_F_MOVE)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("write trace: %w", err)
		case n == 0:
			return fmt.Errorf("write trace: %w", unix.EIO)
		}
		m.inPipe -= n
		m.Moved += n
	}
	return nil
}

// Rest moves what is left once nothing is recorded any more: whole pages, then those that are filled in part, which splice
// leaves.
func (m *Mover) Rest() error {
	for {
		if err := m.Move(); err != nil {
			return err
		}
		if more, err := m.readPage(); err != nil || !more {
			return err
		}
	}
}

// Flush moves what there is now, though the page that is being written may be filled in part; what comes on it later is on a page of its own.
func (m *Mover) Flush() error {
	if err := m.Move(); err != nil {
		return err
	}
	_, err := m.readPage()
	return err
}

// readPage reads a page, with zeroes behind what it holds; more is false if there is nothing.
func (m *Mover) readPage() (more bool, err error) {
	n, err := unix.Read(m.raw, m.partial)
	switch {
	case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
		return false, nil
	case errors.Is(err, unix.EINTR):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read trace: %w", err)
	}
	clear(m.partial[n:])
	for b := m.partial; len(b) > 0; {
		k, err := unix.Write(m.out, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("write trace: %w", err)
		}
		b = b[max(k, 0):]
	}
	m.Moved += int64(m.page)
	return true, nil
}
