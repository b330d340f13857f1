package nic

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nic"
	"github.com/fathom-trace/fathom/netstate/sockdiag"
	"github.com/fathom-trace/fathom/probe"
)

// Place is a place in the kernel's code. The zero value is none.
type Place struct {
	Name   string `json:"function,omitempty"`
	Module string `json:"module,omitempty"`
}

func (p Place) String() string {
	if p.Module != "" {
		return p.Name + " [" + p.Module + "]"
	}
	return p.Name
}

// KernelSocket is a socket that no process has: code of the kernel holds it.
type KernelSocket struct {
	Proto    string // "tcp", "udp", "unix", "netlink route", …
	State    string // of TCP
	Local    netip.AddrPort
	Remote   netip.AddrPort // the zero value of one that is connected to nobody
	Path     string         // of Unix sockets
	Orphan   bool           // no process has it open; that it is the kernel's, and how it was made, is not told
	Kern     bool           // it was made as the kernel's (sock_create_kern), not as a process would
	HoldsNS  bool           // it keeps its network namespace alive
	NetNS    uint64         // inode
	Inode    uint64         // 0 if it is in no file system
	Receives Place          // what is called when something comes in
}

// address is where it is, for people.
func (s *KernelSocket) address() string {
	switch {
	case s.Path != "":
		return s.Path
	case !s.Local.IsValid():
		return ""
	case s.Remote.IsValid():
		return s.Local.String() + " → " + s.Remote.String()
	}
	return s.Local.String()
}

// Orphans are sockets of kinds that the kernel has no iterators over, of which no process was found to have them.
func Orphans(socks []netstate.Socket, netns uint64) (out []KernelSocket) {
	given := func(a netip.AddrPort) netip.AddrPort {
		if a.Port() == 0 && a.Addr().IsUnspecified() {
			return netip.AddrPort{}
		}
		return a
	}
	for _, k := range socks {
		s := KernelSocket{Proto: k.Proto, State: k.State, Local: given(k.Local), Remote: given(k.Remote), NetNS: netns, Inode: k.Inode, Orphan: true}
		switch k.Proto {
		case "raw":
			family := uint64(afINET)
			if k.Family == 6 {
				family = afINET6
			}
			s.Proto = protoName(family, sockRaw, uint64(k.Number))
		case "packet":
			s.Proto = protoName(afPacket, sockRaw, uint64(k.Number))
		case "vsock":
			if k.Number == 0 {
				break
			}
			s.Path = fmt.Sprintf("port %d", k.Number)
		}
		out = append(out, s)
	}
	return out
}

// SocketEvent is something that the kernel did with a socket of its own.
type SocketEvent struct {
	KernelSocket
	What  string // "made", "listens", "connects"
	At    uint64 // CLOCK_MONOTONIC, ns
	PID   int    // the task that ran, which need not be who wanted it
	Comm  string
	By    Place // the first function on the stack that is not of the socket layer
	Stack []Place
}

// SocketOptions say what is wanted of sockets.
type SocketOptions struct {
	CPUs  int    // that are possible
	NetNS uint32 // inode of the namespace whose sockets are told of as they are made; 0 is any
	// Name names a place in the kernel's code. Renew is called when a module was loaded: there is more to be named.
	Name  func(addr uint64) Place
	Renew func()
}

// newSockCode begins programs.
func newSockCode(w *probe.World, o SocketOptions, ring int) (*sockCode, error) {
	base, err := newCode(w, emit.Options{CPUs: o.CPUs, Ring: ring}, 1)
	if err != nil {
		return nil, err
	}
	l, err := newSockLayout(base.l, w.Types())
	return &sockCode{code: base, l: l, netns: o.NetNS}, err
}

// ListSockets gives the kernel's own sockets in the network namespace of the calling thread: TCP, UDP, Unix and netlink, each
// kind by the kernel's iterator over them. missing says which kinds this kernel does not tell of, and why.
func ListSockets(ctx context.Context, w *probe.World, o SocketOptions) (out []KernelSocket, missing []nic.Missing, err error) {
	var first error
	for _, it := range sockIters {
		found, err := listKind(ctx, w, o, it.name, it.more)
		if err != nil {
			first = cmp.Or(first, err)
			missing = append(missing, nic.Missing{What: it.name + " sockets", Why: err.Error()})
		}
		out = append(out, found...)
	}
	if len(missing) == len(sockIters) {
		return nil, nil, fmt.Errorf("list %s: %w", missing[0].What, first)
	}
	return out, missing, nil
}

func listKind(ctx context.Context, w *probe.World, o SocketOptions, name string, more sockMore) (out []KernelSocket, err error) {
	c, err := newSockCode(w, o, 1<<20)
	if err != nil {
		return nil, err
	}
	c.walk(name, more)
	sess, err := probe.LoadEmit(c.p, c.targets, probe.Options{World: w, Plain: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sess.Close()) }()
	ring, err := sess.Reader()
	if err != nil {
		return nil, err
	}
	defer ring.Close()
	if err := sess.RunIter(ctx); err != nil {
		return nil, err
	}
	err = drainSockets(ring, func(b []byte) { out = append(out, decodeSocket(b, o.Name)) })
	sorting.Stable(out, func(a, b KernelSocket) int { return strings.Compare(a.Proto+a.address(), b.Proto+b.address()) })
	for _, a := range sess.Accounts() {
		if a.LostRing > 0 {
			err = errors.Join(err, fmt.Errorf("%d of them did not fit", a.LostRing))
		}
	}
	return out, err
}

// drainSockets takes what is in a ring.
func drainSockets(ring *probe.Reader, take func([]byte)) error {
	for !ring.Empty() {
		b, err := ring.Next(time.Now())
		if err != nil || b == nil {
			return err
		}
		if len(b) >= srSize {
			take(b)
		}
	}
	return nil
}

// Sockets looks on as the kernel makes sockets of its own. It belongs to the caller, who must Close it; one goroutine may use it.
type Sockets struct {
	o    SocketOptions
	c    *sockCode
	sess *probe.Session
	ring *probe.Reader
	once map[uint64]initCode // by the task that loads it, which runs it
}

// initCode is the code that a module ran once, when it was loaded.
type initCode struct {
	from, size uint64
	module     string
}

// OpenSockets loads and attaches the programs.
func OpenSockets(w *probe.World, o SocketOptions) (*Sockets, error) {
	c, err := newSockCode(w, o, 1<<20)
	if err != nil {
		return nil, err
	}
	s := &Sockets{o: o, c: c, once: map[uint64]initCode{}}
	c.made()
	c.turned()
	c.modules()
	if s.sess, err = c.load(); err != nil {
		return nil, err
	}
	if s.ring, err = s.sess.Reader(); err != nil {
		return nil, errors.Join(err, s.sess.Close())
	}
	return s, nil
}

// Missing says what cannot be seen on this kernel.
func (s *Sockets) Missing() (out []nic.Missing) {
	for _, m := range s.c.missing {
		out = append(out, nic.Missing{What: "who makes sockets; of TCP it is seen who listens and connects", Why: m})
	}
	for _, m := range s.c.unnamed {
		out = append(out, nic.Missing{What: "names of the code that modules run once, when they are loaded", Why: m})
	}
	return out
}

// Run tells what the kernel does with its sockets until the context ends, and how many events were lost.
func (s *Sockets) Run(ctx context.Context, told func(SocketEvent) error) (lost uint64, err error) {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for running := true; running && err == nil; {
		select {
		case <-ctx.Done():
			s.sess.Detach()
			running = false
		case <-tick.C:
		}
		err = errors.Join(err, drainSockets(s.ring, func(b []byte) {
			if s.loaded(b) || err != nil {
				return
			}
			if e, ok := decodeSocketEvent(b, s.names(b)); ok {
				err = told(e)
			}
		}))
	}
	for _, a := range s.sess.Accounts() {
		lost += a.LostRing + a.Missed
	}
	return lost, err
}

// loaded says if a record is of a module that was loaded, and keeps it.
func (s *Sockets) loaded(b []byte) bool {
	le := binary.LittleEndian
	if sockWhat(le.Uint64(b)) != sockModule {
		return false
	}
	name, _, _ := bytes.Cut(b[srName:srName+srNameSize], []byte{0})
	s.once[le.Uint64(b[srPIDTGID:])] = initCode{le.Uint64(b[srNum:]), le.Uint64(b[srPort:]), string(name)}
	if s.o.Renew != nil {
		s.o.Renew()
	}
	return true
}

// names names places in the kernel's code for the task of a record, also those that it ran once and that are gone.
func (s *Sockets) names(b []byte) func(uint64) Place {
	c := s.once[binary.LittleEndian.Uint64(b[srPIDTGID:])]
	return func(addr uint64) Place {
		if addr-c.from < c.size {
			return Place{"init", c.module}
		}
		return s.o.Name(addr)
	}
}

// Close ends it.
func (s *Sockets) Close() error {
	s.ring.Close()
	return s.sess.Close()
}

// decodeSocket reads a record, which is whole.
func decodeSocket(b []byte, name func(uint64) Place) KernelSocket {
	le := binary.LittleEndian
	word := func(off int) uint64 { return le.Uint64(b[off:]) }
	protocol := word(srProtocol)
	if word(srFamily) == afPacket { // in network byte order
		protocol = protocol>>8&0xff | protocol&0xff<<8
	}
	s := KernelSocket{
		Kern: word(srFlags)&sockKern != 0, HoldsNS: word(srFlags)&sockHolds != 0, NetNS: word(srNetNS), Inode: word(srInode),
		Proto: protoName(word(srFamily), word(srType), protocol),
	}
	if fn := word(srReceives); fn != 0 {
		s.Receives = name(fn)
	}
	var own, other netip.Addr
	switch word(srFamily) {
	case afINET:
		other, own = netip.AddrFrom4([4]byte(b[srAddr4:])), netip.AddrFrom4([4]byte(b[srAddr4+4:]))
	case afINET6:
		own, other = netip.AddrFrom16([16]byte(b[srAddr6:])), netip.AddrFrom16([16]byte(b[srPeer6:]))
	case afUnix:
		s.Path = unixPath(b[srName:srName+srNameSize], int(word(srNum)))
	}
	if sockWhat(word(srWhat)) != sockMade && own.IsValid() {
		s.Local = netip.AddrPortFrom(own, uint16(word(srNum)))
		if port := uint16(word(srPort)); port != 0 {
			s.Remote = netip.AddrPortFrom(other, port>>8|port<<8)
		}
	}
	if strings.HasPrefix(s.Proto, "tcp") && word(srState) != 0 {
		s.State = sockdiag.StateName("tcp", uint8(word(srState)))
	}
	return s
}

// unixPath reads the name of a Unix socket, n bytes with the family: a path, or an abstract name, which begins with a 0 byte.
func unixPath(b []byte, n int) string {
	if n <= 2 {
		return ""
	}
	b = b[:min(n-2, len(b))]
	if b[0] == 0 {
		return "@" + strings.ToValidUTF8(string(b[1:]), "?")
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// decodeSocketEvent reads the record of an event; ok is false for what a process did by a system call.
func decodeSocketEvent(b []byte, name func(uint64) Place) (e SocketEvent, ok bool) {
	le := binary.LittleEndian
	e.KernelSocket = decodeSocket(b, name)
	what := sockWhat(le.Uint64(b[srWhat:]))
	e.What = map[sockWhat]string{sockMade: "made", sockListens: "listens", sockConnects: "connects"}[what]
	e.At, e.PID = le.Uint64(b[srTime:]), int(le.Uint64(b[srPIDTGID:])>>32)
	comm, _, _ := bytes.Cut(b[srComm:srComm+16], []byte{0})
	e.Comm = string(comm)
	if n := int64(le.Uint64(b[srStackLen:])); n > 0 && n <= 8*srFrames {
		for i := range int(n / 8) {
			if a := le.Uint64(b[srStack+8*i:]); a != 0 {
				e.Stack = append(e.Stack, name(a))
			}
		}
	}
	i := slices.IndexFunc(e.Stack, func(p Place) bool { return !socketLayer(p) })
	if i >= 0 {
		e.By, e.Stack = e.Stack[i], e.Stack[i:]
	}
	process := what == sockMade && !e.Kern && slices.ContainsFunc(e.Stack, func(p Place) bool {
		return strings.HasPrefix(p.Name, "__sys_socket") || strings.HasPrefix(p.Name, "__x64_sys_socket") || strings.HasPrefix(p.Name, "__arm64_sys_socket")
	})
	return e, !process
}

// socketLayer says if a function only carries out what somebody asked of sockets, or is of what runs the program.
func socketLayer(p Place) bool {
	if p.Module == "bpf" || p.Name == "" {
		return true
	}
	for _, f := range []string{"security_socket_post_create", "__sock_create", "sock_create", "kernel_", "udp_sock_create", "setup_udp_tunnel_sock", "inet_", "__inet_", "tcp_", "__tcp_",
		"bpf_", "__bpf_", "__traceiter_", "kprobe_", "ftrace_", "arch_ftrace", "trace_call_bpf", "perf_", "opt_pre_handler", "optimized_callback", "aggr_pre_handler", "__netlink_kernel_create"} {
		if strings.HasPrefix(p.Name, f) {
			return true
		}
	}
	return false
}
