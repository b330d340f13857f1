// Package live reads the network of a namespace into a [netstate.State]. It changes nothing: netlink dumps, files of /proc,
// queries of ethtool and bpf(2). The kernel may load the modules that answer (tcp_diag, nf_tables).
//
// A [Reader] holds one namespace open, with the sockets it has needed so far, so that reading again costs little. What
// cannot be read (no privilege, a module that is not there) is said in State.Missing; nothing fails as a whole.
//
//	r, err := live.Open("web")            // a name below /run/netns, a process number, or a path; live.OpenInode(4026532177)
//	defer r.Close()
//	before := r.Read(live.Counters)
//	…
//	after := r.Read(live.Counters)
//	moved := netstate.Diff(before, after) // "Udp.NoPorts": 5
//	s := r.Read(live.All)
//	r.Owners(s)                           // which process has which socket, of one state or several: looks through all of /proc
//
// [OpenAll] opens every namespace there is. Update reads parts of a State again; in the process's own namespace no privilege
// is needed for most. A Reader is not safe for use by several goroutines at once.
package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
)

// Parts are parts of a State that can be asked for.
type Parts uint32

// The parts. Counters are those that are quick to read: /proc/net, links, traffic control, rules of nftables; Ethtool are
// the counters of drivers, which some devices are slow to tell.
const (
	Links Parts = 1 << iota
	Addrs
	Routes
	Rules
	Neighs
	Groups
	Sockets
	NFT
	TC // qdiscs, filters, tcx
	Policies
	Sysctls
	Counters
	Ethtool

	All = 1<<iota - 1
	// Deciding are those of the Sysctls that answers are made of (netstate.DecidingSysctls); nothing beside Sysctls.
	Deciding = 1 << iota
	// MoreSockets are those of SCTP and AF_VSOCK, where a kernel has these loaded.
	MoreSockets
)

// timeout bounds each answer of the kernel.
const timeout = 10 * time.Second

// Reader reads one namespace.
type Reader struct {
	// Proc is where procfs is; "/proc" unless a test has put files elsewhere.
	Proc string

	ns    netns.NS
	id    netstate.Namespace
	conns map[int]*netlink.Conn // by netlink family
	progs map[uint32]string     // names of BPF programs
	peers map[int]peer          // by IFLA_LINK_NETNSID
}

// Open opens a namespace by what people call it: its name below /run/netns, the number of a process in it, or a path.
// "" is the namespace of this process.
func Open(ref string) (*Reader, error) {
	if ref == "" {
		ref = "/proc/self/ns/net"
	}
	ns, err := netns.Open(ref)
	if err != nil {
		return nil, err
	}
	return newReader(ns, "/proc")
}

// OpenNS opens a namespace that the caller has open; the caller keeps its own descriptor.
func OpenNS(ns netns.NS) (*Reader, error) { return Open(fmt.Sprintf("/proc/self/fd/%d", ns.FD())) }

// OpenInode opens the namespace of a number, as events have it (net:[4026531840]). It looks for someone who is in it or
// holds it. If nobody does, or it is hidden from this user, errors.Is(err, fs.ErrNotExist).
func OpenInode(inode uint64) (*Reader, error) {
	for s := range spaces("/proc", true) {
		if s.inode != inode {
			continue
		}
		ns, err := netns.Open(s.path)
		if err != nil {
			continue // it ended meanwhile
		}
		if ino, err := inodeOf(ns.FD()); err != nil || ino != inode {
			ns.Close()
			continue
		}
		return newReader(ns, "/proc")
	}
	return nil, &fs.PathError{Op: "open network namespace", Path: fmt.Sprintf("net:[%d]", inode), Err: fs.ErrNotExist}
}

func newReader(ns netns.NS, proc string) (*Reader, error) {
	ino, err := inodeOf(ns.FD())
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return open(ns, proc, netstate.Namespace{Inode: ino, Name: nameOf(proc, ino)}), nil
}

func open(ns netns.NS, proc string, id netstate.Namespace) *Reader {
	return &Reader{Proc: proc, ns: ns, id: id, conns: map[int]*netlink.Conn{}, progs: map[uint32]string{}, peers: map[int]peer{}}
}

// NS is the namespace that is read.
func (r *Reader) NS() netstate.Namespace { return r.id }

// Do runs f in the namespace, as [netns.NS.Do].
func (r *Reader) Do(f func() error) error { return r.ns.Do(f) }

// Close lets go of the namespace and the sockets in it.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range r.conns {
		errs = append(errs, c.Close())
	}
	r.conns = nil
	return errors.Join(append(errs, r.ns.Close())...)
}

// Read reads parts of the namespace's state. What it returns belongs to the caller.
func (r *Reader) Read(parts Parts) *netstate.State {
	s := &reading{Reader: r, parts: parts, out: &netstate.State{NS: r.id, Time: time.Now()}}
	if parts&Counters != 0 || parts&Ethtool != 0 {
		s.out.Counters = make(map[string]uint64, 512)
	}
	s.rtnetlink()
	s.sockets()
	s.moreSockets()
	s.nftables()
	s.policies()
	s.within()
	return s.out
}

// Update reads parts again and puts them into s; the others stay as they are.
func (r *Reader) Update(s *netstate.State, parts Parts) {
	n := r.Read(parts)
	s.Time = n.Time
	for _, p := range []struct {
		part Parts
		set  func()
	}{
		{Links, func() { s.Links = n.Links }}, {Addrs, func() { s.Addrs = n.Addrs }}, {Routes, func() { s.Routes = n.Routes }},
		{Rules, func() { s.Rules = n.Rules }}, {Neighs, func() { s.Neighs, s.FDB = n.Neighs, n.FDB }}, {Groups, func() { s.Groups = n.Groups }},
		{Sockets, func() { s.Sockets = n.Sockets }}, {NFT, func() { s.Chains, s.Sets = n.Chains, n.Sets }},
		{TC, func() { s.Qdiscs, s.Filters = n.Qdiscs, n.Filters }}, {Policies, func() { s.Policies = n.Policies }},
		{Sysctls | Deciding, func() { s.Sysctls = n.Sysctls }}, {Counters | Ethtool, func() { s.Counters = n.Counters }},
	} {
		if parts&p.part != 0 {
			p.set()
		}
	}
	s.Missing = n.Missing
}

// reading is one Read on its way.
type reading struct {
	*Reader
	parts Parts
	out   *netstate.State
	links []linkStats // for the counters of the devices
}

func (s *reading) want(p Parts) bool { return s.parts&p != 0 }

// missing notes a part that could not be read. What a kernel has no code for has nothing that could be read.
func (s *reading) missing(what string, err error) {
	if err != nil {
		s.out.Missing = append(s.out.Missing, netstate.Missing{What: what, Err: err.Error()})
	}
}

// within does what must be done on a thread of the namespace, all in one visit.
func (s *reading) within() {
	if !s.want(Groups | Sysctls | Deciding | Counters | Ethtool | TC) {
		return
	}
	err := s.ns.Do(func() error {
		s.files()
		if s.want(TC) {
			s.tcx()
		}
		if s.want(Ethtool) {
			s.ethtool()
		}
		return nil
	})
	s.missing("files of the namespace", err)
}

// conn returns the socket of a netlink family, made in the namespace when it is first needed.
func (r *Reader) conn(family int) (*netlink.Conn, error) {
	if c := r.conns[family]; c != nil {
		return c, nil
	}
	// Not by Config.NetNS: mdlayher/socket 0.5.1 then forgets the error of a family that the kernel does not have.
	var c *netlink.Conn
	err := r.ns.Do(func() (err error) { c, err = netlink.Dial(family, nil); return err })
	if err != nil {
		return nil, err
	}
	r.conns[family] = c
	return c, nil
}

// dump asks for all objects of a kind and gives f the payload of each answer. A dump that changed on its way is read again,
// a few times: what it then holds is what there was, some of it from before and some from after.
func (r *Reader) dump(family int, typ uint16, body []byte, f func(typ uint16, b []byte) error) error {
	c, err := r.conn(family)
	if err != nil {
		return err
	}
	var msgs []netlink.Message
	for range 3 {
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		req := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Dump}, Data: body}
		if msgs, err = c.Execute(req); err != nil {
			r.forget(family, err)
			return unwrap(err)
		}
		if !interrupted(msgs) {
			break
		}
	}
	for _, m := range msgs {
		if m.Header.Type == netlink.Done || m.Header.Type == netlink.Error {
			continue
		}
		if err := f(uint16(m.Header.Type), m.Data); err != nil {
			return err
		}
	}
	return nil
}

// forget closes a socket whose answers may be out of step.
func (r *Reader) forget(family int, err error) {
	if op := (*netlink.OpError)(nil); errors.As(err, &op) && op.Op == "receive" && errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ENOBUFS) {
		r.conns[family].Close()
		delete(r.conns, family)
	}
}

func interrupted(msgs []netlink.Message) bool {
	for _, m := range msgs {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return true
		}
	}
	return false
}

// unwrap leaves the kernel's word of a netlink error.
func unwrap(err error) error {
	var n unix.Errno
	if errors.As(err, &n) {
		return n
	}
	return err
}

func inodeOf(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat network namespace: %w", err)
	}
	return st.Ino, nil
}
