package shm

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Errors of writers and readers.
var (
	// ErrPeerGone says that the process at the other end died without closing.
	ErrPeerGone = errors.New("the process at the other end is gone")
	// ErrFull says that there is no room: who sends must wait, or drop.
	ErrFull = errors.New("there is no room")
	// ErrEmpty says that there is no message.
	ErrEmpty = errors.New("there is no message")
	// ErrTooLong says that a message is longer than a slot, or than the buffer it is to be read into.
	ErrTooLong = errors.New("the message is too long")
	// ErrTaken says that there are as many writers, or readers, as there may be.
	ErrTaken = errors.New("all places are taken")
)

// Memory is memory that processes share. It is safe for use by several goroutines; a Writer and a Reader belong to one each.
type Memory struct {
	cfg  Config
	mem  []byte
	file *os.File                           // an open file of its own: locks belong to it
	mine [maxLanes + maxReaders]atomic.Bool // locks that are held through file
}

// Create makes memory. It goes when no process has it any more.
func Create(c Config) (*Memory, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("fathom-shm", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:fathom-shm")
	defer f.Close()
	if err := f.Truncate(int64(c.size())); err != nil {
		return nil, fmt.Errorf("make shared memory of %d bytes: %w", c.size(), err)
	}
	// Its size is sealed: no other process can take memory away under those that read it.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, fmt.Errorf("seal shared memory: %w", err)
	}
	b := make([]byte, 64)
	c.encode(b)
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, fmt.Errorf("write shared memory: %w", err)
	}
	return OpenFile(f)
}

// OpenFile opens memory by a descriptor that another process handed over. f stays the caller's.
func OpenFile(f *os.File) (*Memory, error) { return Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) }

// Open opens memory by a path, such as Memory.Path of another process.
func Open(path string) (_ *Memory, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0) // a new open file, also of a descriptor: locks are not shared with whoever handed it over
	if err != nil {
		return nil, fmt.Errorf("open shared memory: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open shared memory: %w", err)
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("open shared memory %s: its size is not sealed, so another process could take it away", path)
	}
	var b [64]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("read shared memory %s: %w", path, err)
	}
	c, err := decode(b[:], st.Size())
	if err != nil {
		return nil, fmt.Errorf("open shared memory %s: %w", path, err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, c.size(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	return &Memory{cfg: c, mem: mem, file: f}, nil
}

// File is the memory's descriptor, to hand over to another process.
func (m *Memory) File() *os.File { return m.file }

// Path names the memory for processes of the same user, as long as this one has it open.
func (m *Memory) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.file.Fd()) }

// Config says how the memory is.
func (m *Memory) Config() Config { return m.cfg }

// Close unmaps the memory. Its writers and readers must be closed before.
func (m *Memory) Close() error {
	mem := m.mem
	m.mem = nil
	return errors.Join(unix.Munmap(mem), m.file.Close())
}

// lane is one writer's part of the memory.
//
// Why accesses are right: head and sequences are written by the writer only, tails by their readers only, all by sync/atomic, which is
// sequentially consistent. The writer fills a slot before it stores its sequence, a reader loads that before it reads the slot, and
// stores tail after; the writer loads tails before it fills the slot again. So under Block and Drop a slot is never written
// while it is read, as with the rings of package xsk. Under Overwrite it may be: there the words of a slot are atomics, too, and
// its sequence, odd while it is written, is loaded before and after reading: a message that changed meanwhile is thrown away.
// head is stored last, and only says where the next writer goes on, and where one of several readers begins. Of a writer that died in
// between, the next one finds the message by its sequence.
// The bytes lie in mem, which the lane keeps; offsets are bounded by Config.check, and aligned, since all lengths are
// multiples of 8.
type lane struct {
	head    *atomic.Uint64
	state   *atomic.Uint32
	room    *atomic.Uint32 // 1 while the writer sleeps until there is room
	dropped *atomic.Uint64
	readers []readerLine
	slots   []byte
	stride  uint64
	mask    uint64
}

// readerLine is what a reader writes in a lane.
type readerLine struct {
	tail   *atomic.Uint64
	active *atomic.Uint32
	sleeps *atomic.Uint32 // 1 while the reader sleeps until there are messages; that of lane 0 is used
	lost   *atomic.Uint64
}

// newLane finds lane i.
func newLane(mem []byte, c Config, i int) lane {
	at := headerLen + i*c.laneLen()
	b := mem[at : at+c.laneLen() : at+c.laneLen()]
	l := lane{
		head: u64(b, offHead), state: u32(b, offState), room: u32(b, offRoom), dropped: u64(b, offDropped),
		slots: b[lineLen*(1+c.Readers):], stride: uint64(c.stride()), mask: uint64(c.Slots - 1),
	}
	for r := range c.Readers {
		line := b[lineLen*(1+r):]
		l.readers = append(l.readers, readerLine{u64(line, offTail), u32(line, offActive), u32(line, offSleeps), u64(line, offLost)})
	}
	return l
}

func u64(b []byte, off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&b[off : off+8][0]))
}
func u32(b []byte, off int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&b[off : off+4][0]))
}

// slot is where message n lies.
func (l *lane) slot(n uint64) []byte {
	at := (n & l.mask) * l.stride
	return l.slots[at : at+l.stride : at+l.stride]
}

// sequence is that of the slot of message n.
func (l *lane) sequence(n uint64) *atomic.Uint64 { return u64(l.slots, int((n&l.mask)*l.stride)) }

// Locks: byte i is of writer i, byte maxLanes+i of reader i. They are of the open file, so they end with the process.
func (m *Memory) lock(i int) error {
	return unix.FcntlFlock(m.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: int64(i), Len: 1})
}

func (m *Memory) unlock(i int) error {
	defer m.mine[i].Store(false)
	return unix.FcntlFlock(m.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: int64(i), Len: 1})
}

// held says if somebody has a lock.
func (m *Memory) held(i int) bool {
	if m.mine[i].Load() {
		return true
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(i), Len: 1}
	return unix.FcntlFlock(m.file.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

// claim takes the first lock that is free.
func (m *Memory) claim(first, n int) (int, error) {
	for i := range n {
		if m.mine[first+i].Swap(true) {
			continue // a lock does not stop the open file that has it
		}
		err := m.lock(first + i)
		if err == nil {
			return i, nil
		}
		m.mine[first+i].Store(false)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return 0, fmt.Errorf("take a place in shared memory: %w", err)
		}
	}
	return 0, ErrTaken
}
