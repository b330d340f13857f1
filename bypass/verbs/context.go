package verbs

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/netstate/rdma"
)

// carried is the driver whose queues this package knows, and the versions of what it shares with programs: both are the same on
// machines of 64 bits.
const (
	carried              = "rxe"
	oldestABI, newestABI = 1, 2
)

// Context is an open device. It is safe for use by several goroutines.
type Context struct {
	device rdma.Device
	port   queryPortResp

	mu sync.RWMutex // of fd: commands hold it for reading
	fd int          // −1 once closed

	list sync.Mutex
	open []io.Closer // in the order in which they were made
}

// Devices lists the RDMA devices of this network namespace. Devices are there also with an error, which says what is not known of them.
func Devices() ([]rdma.Device, error) { return rdma.Read() }

// Open opens a device by its name, rxe0, or by that of the network device below it, eth0. A device that is not there:
// errors.Is(err, fs.ErrNotExist). A driver other than rxe: errors.Is(err, feature.ErrUnsupported), and the error says why.
func Open(name string) (*Context, error) {
	devs, err := rdma.Read()
	i := slices.IndexFunc(devs, func(d rdma.Device) bool { return d.Name == name })
	if i < 0 {
		i = slices.IndexFunc(devs, func(d rdma.Device) bool { return d.On(name, "") })
	}
	if i < 0 {
		return nil, notThere(name, devs, err)
	}
	d := devs[i]
	if err := check(&d, err); err != nil {
		return nil, err
	}
	path := filepath.Join("/dev/infiniband", d.Verbs)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, explain("open "+path+" of", d.Name, err)
	}
	x := &Context{device: d, fd: fd}
	if err := x.start(); err != nil {
		return nil, errors.Join(explain("open", d.Name, err), unix.Close(fd))
	}
	return x, nil
}

// check says if a device is one whose queues are known. err is why something is not known of it.
func check(d *rdma.Device, err error) error {
	why := ""
	switch {
	case d.Driver == "" && err != nil:
		return explain("open", d.Name, err)
	case d.Verbs == "":
		return &Error{Op: "open", Device: d.Name, Err: unix.ENODEV, Why: "programs reach it by no file: the module ib_uverbs is not loaded", Try: []string{"modprobe ib_uverbs"}}
	case d.Driver == "":
		why = "this kernel does not say which driver it has (Linux 5.3 does)"
	case d.Driver != carried:
		why = "its driver is " + d.Driver + ", whose queues have a form of their own; only those of rxe (RDMA over Ethernet in software) are carried"
	case d.ABI < oldestABI || d.ABI > newestABI:
		why = fmt.Sprintf("its driver shares version %d with programs; known are %d to %d", d.ABI, oldestABI, newestABI)
	default:
		return nil
	}
	return &Error{Op: "open", Device: d.Name, Err: feature.ErrUnsupported, Why: why}
}

// start asks for what a context has.
func (x *Context) start() error {
	var c getContext
	var r getContextResp
	if err := x.ask(cmdGetContext, &c.asking, unsafe.Sizeof(c), unsafe.Pointer(&r), unsafe.Sizeof(r)); err != nil {
		return err
	}
	// Events that belong to no work (a port that goes down) are not waited for: work tells by its status.
	if err := unix.Close(int(r.AsyncFD)); err != nil {
		return err
	}
	q := queryPort{Port: firstPort}
	return x.ask(cmdQueryPort, &q.asking, unsafe.Sizeof(q), unsafe.Pointer(&x.port), unsafe.Sizeof(x.port))
}

// firstPort is the port that is used. rxe has no other.
const firstPort = 1

// Device says what was opened, as it was then.
func (x *Context) Device() rdma.Device { return x.device }

// MTU is how many bytes of a message a packet takes on the device's port at most, as its network allows now: 256 to 4096.
func (x *Context) MTU() int { return mtuBytes(x.port.ActiveMTU) }

// do runs a command, unless the context is closed.
func (x *Context) do(f func(fd int) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.fd < 0 {
		return ErrClosed
	}
	return f(x.fd)
}

// fail explains what failed on this device.
func (x *Context) fail(op string, err error) error { return explain(op, x.device.Name, err) }

// keep remembers what is to be closed with the context.
func (x *Context) keep(c io.Closer) {
	x.list.Lock()
	x.open = append(x.open, c)
	x.list.Unlock()
}

// has says if it is remembered.
func (x *Context) has(c io.Closer) bool {
	x.list.Lock()
	defer x.list.Unlock()
	return slices.Contains(x.open, c)
}

// drop forgets it again; it says if it was there, which it is for the first who asks.
func (x *Context) drop(c io.Closer) bool {
	x.list.Lock()
	defer x.list.Unlock()
	i := slices.Index(x.open, c)
	if i < 0 {
		return false
	}
	x.open = slices.Delete(x.open, i, i+1)
	return true
}

// Close closes what is open of the context, the latest first, and the device. No goroutine may use any of it any more.
func (x *Context) Close() error {
	x.list.Lock()
	open := slices.Clone(x.open)
	x.list.Unlock()
	var errs []error
	for _, c := range slices.Backward(open) {
		if err := c.Close(); !errors.Is(err, ErrClosed) {
			errs = append(errs, err)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fd < 0 {
		return ErrClosed
	}
	errs = append(errs, unix.Close(x.fd))
	x.fd = -1
	return errors.Join(errs...)
}

// source gives the address of the device's port that packets come from: the one that was asked for, else the first IPv4 one, else the
// first of all. Addresses come and go with those of the network device, so they are read now.
func (x *Context) source(want netip.Addr) (rdma.GID, error) {
	all := rdma.Addresses(x.device.Name, firstPort)
	best, found := rdma.GID{}, false
	for _, g := range all {
		switch {
		case g.Type != rdma.RoCE2 || g.Index > 255: // commands have a byte for the index
		case want.IsValid() && g.Addr.Unmap() == want.Unmap():
			return g, nil
		case !want.IsValid() && (!found || g.Addr.Is4In6() && !best.Addr.Is4In6()):
			best, found = g, true
		}
	}
	if !found {
		what := "address over UDP (" + rdma.RoCE2 + ")"
		if want.IsValid() {
			what = "address " + want.String()
		}
		return best, &Error{Op: "find " + what + " of", Device: x.device.Name, Err: unix.EADDRNOTAVAIL,
			Why: "the addresses are those of the network device " + x.device.Parent, Try: []string{"ip address show dev " + x.device.Parent, "fathom bypass rdma"}}
	}
	return best, nil
}

// ProtectionDomain holds memory and queue pairs that may be used together.
type ProtectionDomain struct {
	x      *Context
	handle uint32
}

// NewProtectionDomain makes a domain.
func (x *Context) NewProtectionDomain() (*ProtectionDomain, error) {
	var c allocPD
	var r allocPDResp
	if err := x.ask(cmdAllocPD, &c.asking, unsafe.Sizeof(c), unsafe.Pointer(&r), unsafe.Sizeof(r)); err != nil {
		return nil, x.fail("make a protection domain on", err)
	}
	d := &ProtectionDomain{x, r.Handle}
	x.keep(d)
	return d, nil
}

// Close ends the domain. It fails while memory or queue pairs are in it.
func (d *ProtectionDomain) Close() error {
	if !d.x.has(d) {
		return ErrClosed
	}
	c := deallocPD{Handle: d.handle}
	if err := d.x.tell(cmdDeallocPD, &c.header, unsafe.Sizeof(c)); err != nil {
		return d.x.fail("end a protection domain on", err)
	}
	d.x.drop(d)
	return nil
}

// Access says what may be done with memory, or through a queue pair. Reading by this process's own work is always allowed.
type Access uint32

// Rights: enum ib_uverbs_access_flags. A peer may only write what is LocalWrite, too.
const (
	LocalWrite  Access = 1 << 0 // receives and the answers to READs may write there
	RemoteWrite Access = 1 << 1 // the peer may write there
	RemoteRead  Access = 1 << 2 // the peer may read there
)

// Memory is memory that a device may use. It belongs to this package, not to Go's collector: it does not move, and is there until Close.
type Memory struct {
	d      *ProtectionDomain
	mem    []byte
	handle uint32
	lkey   uint32
	rkey   uint32
}

// RegisterMemory allocates n bytes, all zero, and registers them. The pages are locked until Close, which counts against ulimit -l.
func (d *ProtectionDomain) RegisterMemory(n int, a Access) (*Memory, error) {
	if n <= 0 || n > 1<<40 {
		return nil, fmt.Errorf("register memory on %s: %d bytes are none", d.x.device.Name, n)
	}
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	m := &Memory{d: d, mem: mem}
	c := regMR{Start: m.addr(), Length: uint64(n), Addr: m.addr(), Domain: d.handle, Access: uint32(a)}
	var r regMRResp
	if err := d.x.ask(cmdRegMR, &c.asking, unsafe.Sizeof(c), unsafe.Pointer(&r), unsafe.Sizeof(r)); err != nil {
		return nil, errors.Join(d.x.fail("register memory on", err), unix.Munmap(mem))
	}
	m.handle, m.lkey, m.rkey = r.Handle, r.LocalKey, r.RemoteKey
	d.x.keep(m)
	return m, nil
}

// addr is the address of the first byte.
func (m *Memory) addr() uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(m.mem)))) }

// Bytes is the memory. While work on a part of it is not complete that part is the device's: it must not be written, and of a receive not
// be read. Nothing of it may be used after Close.
func (m *Memory) Bytes() []byte { return m.mem }

// Segment names n bytes of the memory from an offset on, for work. It panics if they are not in it, as slicing does.
func (m *Memory) Segment(off, n int) Segment {
	_ = m.mem[off : off+n : len(m.mem)]
	return Segment{Addr: m.addr() + uint64(off), Length: uint32(n), Key: m.lkey}
}

// Remote is memory of the peer, from an address on, as the peer told it.
type Remote struct {
	Addr uint64 `json:"addr"`
	Key  uint32 `json:"key"`
}

// Remote is what a peer needs to know to read or write the memory from an offset on, as far as it was registered for that.
func (m *Memory) Remote(off int) Remote { return Remote{m.addr() + uint64(off), m.rkey} }

// Close takes the memory from the device and frees it. Work on it must be complete.
func (m *Memory) Close() error {
	if !m.d.x.has(m) {
		return ErrClosed
	}
	c := deregMR{Handle: m.handle}
	if err := m.d.x.tell(cmdDeregMR, &c.header, unsafe.Sizeof(c)); err != nil {
		return m.d.x.fail("give back memory of", err)
	}
	m.d.x.drop(m)
	mem := m.mem
	m.mem = nil
	return unix.Munmap(mem)
}
