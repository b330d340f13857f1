package probe

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/usersym"
)

// Mappings tells a resolver what processes map to execute, from the moment it is opened: a process that starts, is traced
// and ends has names afterwards. It reads the records the kernel writes for perf (include/uapi/linux/perf_event.h).
type Mappings struct {
	users *usersym.Resolver
	rings []*perfRing
	mu    sync.Mutex // one reader at a time
	stop  chan struct{}
	done  sync.WaitGroup
}

// mappingPages is the size of one CPU's ring, in pages: a record takes about 100 bytes, an exec makes ten.
const mappingPages = 64

// WatchMappings begins to listen on all CPUs. The resolver is told the times of CLOCK_MONOTONIC. The caller must Close it.
func WatchMappings(users *usersym.Resolver) (*Mappings, error) {
	cpus, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	w := &Mappings{users: users, stop: make(chan struct{})}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample_type: unix.PERF_SAMPLE_TIME, // at the end of every record, with sample_id_all
		Bits:        unix.PerfBitSampleIDAll | unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitComm | unix.PerfBitCommExec | unix.PerfBitTask | unix.PerfBitWatermark | unix.PerfBitUseClockID, Wakeup: 1,
		Clockid: unix.CLOCK_MONOTONIC, // that of recordings
	}
	for _, cpu := range cpus {
		r, err := openRing(&attr, cpu)
		if err != nil {
			w.Close()
			return nil, fmt.Errorf("listen for mappings on CPU %d: %w", cpu, err)
		}
		w.rings = append(w.rings, r)
	}
	w.done.Go(w.follow)
	return w, nil
}

// follow drains the rings now and then, so that none overflows.
func (w *Mappings) follow() {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.Drain()
		case <-w.stop:
			return
		}
	}
}

// Drain hands on all that was recorded so far. What a stack needs was recorded before the stack: drain, then name it.
func (w *Mappings) Drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []timed
	for _, r := range w.rings {
		r.drain(func(b []byte) {
			if len(b) >= 16 {
				all = append(all, timed{binary.LittleEndian.Uint64(b[len(b)-8:]), bytes.Clone(b)})
			}
		})
	}
	sorting.Stable(all, func(a, b timed) int { return cmp.Compare(a.at, b.at) })
	for _, r := range all {
		w.record(r.at, r.b)
	}
}

// timed is a record and its time.
type timed struct {
	at uint64
	b  []byte
}

// Close ends listening.
func (w *Mappings) Close() error {
	select {
	case <-w.stop:
		return nil
	default:
		close(w.stop)
	}
	w.done.Wait()
	for _, r := range w.rings {
		r.close()
	}
	return nil
}

// Parts of records: the offsets are from the start of the record, its header of 8 bytes included.
const (
	mmap2Name = 72 // filename of PERF_RECORD_MMAP2, behind prot and flags
	commExec  = 1 << 13
	mmapData  = 1 << 13 // PERF_RECORD_MISC_MMAP_DATA: not to be executed
)

// record takes one record. Those of one drain come in the order of their time; between drains a CPU may be late.
func (w *Mappings) record(at uint64, b []byte) {
	le := binary.LittleEndian
	typ, misc := le.Uint32(b), le.Uint16(b[4:])
	switch {
	case typ == unix.PERF_RECORD_MMAP2 && misc&mmapData == 0 && len(b) > mmap2Name:
		w.users.Mapped(int(le.Uint32(b[8:])), at, usersym.Mapping{
			Start: le.Uint64(b[16:]), Len: le.Uint64(b[24:]), Offset: le.Uint64(b[32:]),
			Major: le.Uint32(b[40:]), Minor: le.Uint32(b[44:]), Inode: le.Uint64(b[48:]), Path: unix.ByteSliceToString(b[mmap2Name:]),
		})
	case typ == unix.PERF_RECORD_COMM && misc&commExec != 0 && len(b) >= 16:
		w.users.Exec(int(le.Uint32(b[8:])), at)
	case typ == unix.PERF_RECORD_FORK && len(b) >= 16:
		if pid, ppid := le.Uint32(b[8:]), le.Uint32(b[12:]); pid != ppid { // else it is a thread
			w.users.Forked(int(ppid), int(pid), at)
		}
	}
}

// perfRing is the ring of one perf event. The kernel writes at head, we read at tail; both only grow (perf_event_mmap_page).
type perfRing struct {
	fd   int
	mem  []byte
	data []byte
	buf  [1 << 16]byte // a record that wraps, made whole: its size has 16 bits
}

func openRing(attr *unix.PerfEventAttr, cpu int) (*perfRing, error) {
	fd, err := unix.PerfEventOpen(attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	page := os.Getpagesize()
	mem, err := unix.Mmap(fd, 0, (1+mappingPages)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &perfRing{fd: fd, mem: mem, data: mem[page:]}, nil
}

// page is the control page. It is at the start of mem, which the kernel aligned to a page, and as large as the struct.
func (r *perfRing) page() *unix.PerfEventMmapPage {
	return (*unix.PerfEventMmapPage)(unsafe.Pointer(&r.mem[0]))
}

// drain hands every complete record to f, which must not keep it.
func (r *perfRing) drain(f func([]byte)) {
	p := r.page()
	head, tail := atomic.LoadUint64(&p.Data_head), p.Data_tail // only we write the tail
	size := uint64(len(r.data))
	for head-tail >= 8 {
		n := uint64(binary.LittleEndian.Uint16(r.data[(tail+6)%size:])) // records are 8-aligned: a header does not wrap
		if n < 8 || n > head-tail {
			tail = head // not as documented: start over
			break
		}
		at := tail % size
		rec := r.data[at:min(at+n, size)]
		if uint64(len(rec)) < n { // the end of the ring is in it
			copy(r.buf[copy(r.buf[:], rec):], r.data[:n-uint64(len(rec))])
			rec = r.buf[:n]
		}
		f(rec)
		tail += n
	}
	atomic.StoreUint64(&p.Data_tail, tail)
}

func (r *perfRing) close() {
	unix.Munmap(r.mem)
	unix.Close(r.fd)
}
