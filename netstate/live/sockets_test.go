package live_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

// randomSocket opens a UDP socket that others may overlap.
func randomSocket(r *rand.Rand) (fd int, err error) {
	family := []int{unix.AF_INET, unix.AF_INET, unix.AF_INET6}[r.IntN(3)]
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	set := func(level, opt, v int) { err = errors.Join(err, unix.SetsockoptInt(fd, level, opt, v)) }
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if r.IntN(4) == 0 {
		err = errors.Join(err, unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []string{"lo", "va"}[r.IntN(2)]))
	}
	port, addr := 1+r.IntN(3), [4]byte{127, 0, 0, byte(1 + r.IntN(3))}
	if r.IntN(2) == 0 {
		addr = [4]byte{}
	}
	if family == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, r.IntN(2))
		err = errors.Join(err, unix.Bind(fd, &unix.SockaddrInet6{Port: port}))
	} else {
		err = errors.Join(err, unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: addr}))
		if err == nil && r.IntN(3) == 0 {
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: 10 + r.IntN(2), Addr: [4]byte{127, 0, 0, byte(1 + r.IntN(3))}})
		}
	}
	return fd, err
}

// TestSocketsFor: of many sockets that overlap, a datagram comes to one that we said it would, and to none if we said so.
func TestSocketsFor(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	got, none := 0, 0
	for seed := range rounds(8) {
		r := rand.New(rand.NewPCG(seed, 21))
		s := newSpace(t)
		h := s.handle()
		lo, err := h.LinkByName("lo")
		if err == nil {
			err = h.LinkSetUp(lo)
		}
		try(t, "lo", err)
		s.addLink(h, veth("va", "vb"))
		var fds []int
		err = s.NS.Do(func() error {
			for range 10 {
				fd, err := randomSocket(r)
				if err == nil {
					fds = append(fds, fd)
				} else if fd >= 0 {
					unix.Close(fd)
				}
			}
			return nil
		})
		if err != nil || len(fds) < 3 {
			t.Fatal(err, len(fds))
		}
		state := s.Read(live.Sockets | live.Links | live.Sysctls)
		for range 60 {
			local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + r.IntN(4))}), uint16(1+r.IntN(4)))
			remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + r.IntN(4))}), uint16(10+r.IntN(3)))
			all := state.SocketsFor("udp", local, remote, 1)
			s.send([][]byte{datagram(remote, local)})
			inode := receiver(t, fds, len(all) > 0 && all[0].Chosen)
			if inode == 0 {
				none++
			} else {
				got++
			}
			ok := inode == 0 && !slices.ContainsFunc(all, func(c netstate.Candidate) bool { return c.Chosen })
			for _, c := range all {
				ok = ok || c.Chosen && c.Socket.Inode == inode
			}
			if !ok {
				text := ""
				for _, c := range all {
					text += fmt.Sprintf("%+v %v %s\n", *c.Socket, c.Chosen, c.Why)
				}
				t.Fatalf("seed %d: %v → %v came to %d\n%s", seed, remote, local, inode, text)
			}
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	t.Logf("%d received, %d not", got, none)
	if got == 0 || none == 0 {
		t.Error("one sided")
	}
}

func datagram(from, to netip.AddrPort) []byte {
	p := make([]byte, 28)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], 8)
	return p
}

// receiver finds the socket that something came to and takes it; if one is expected, it waits for it.
func receiver(t *testing.T, fds []int, expected bool) uint64 {
	t.Helper()
	var b [64]byte
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		for _, fd := range fds {
			if _, _, err := unix.Recvfrom(fd, b[:], 0); err == nil {
				var st unix.Stat_t
				if err := unix.Fstat(fd, &st); err != nil {
					t.Fatal(err)
				}
				return st.Ino
			}
		}
		if !expected || time.Now().After(deadline) {
			return 0
		}
	}
}

// TestSockets: listeners with their queues, connections, devices, MD5, raw and packet sockets, and who has them.
func TestSockets(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := newSpace(t)
	h := s.handle()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	try(t, "lo", err)
	var fds []int
	var signs error
	xdp := false
	open := func(family, typ, proto int) int {
		fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		return fd
	}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	err = s.NS.Do(func() error {
		l := open(unix.AF_INET, unix.SOCK_STREAM, 0)
		c := open(unix.AF_INET, unix.SOCK_STREAM, 0)
		err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Port: 80}), unix.Listen(l, 3), unix.Connect(c, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}}))
		u := open(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		err = errors.Join(err, unix.SetsockoptInt(u, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1), unix.BindToDevice(u, "lo"), unix.Bind(u, &unix.SockaddrInet6{Port: 9}))
		p := open(unix.AF_PACKET, unix.SOCK_RAW, 0)
		err = errors.Join(err, unix.Bind(p, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: 1}))
		open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		if fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err == nil {
			fds, xdp = append(fds, fd), true
		}
		m := open(unix.AF_INET, unix.SOCK_STREAM, 0)
		sig := &unix.TCPMD5Sig{Addr: unix.SockaddrStorage{Family: unix.AF_INET}, Keylen: 3}
		sig.Addr.Data[2], sig.Addr.Data[3], sig.Addr.Data[4], sig.Addr.Data[5] = 10, 77, 0, 1
		copy(sig.Key[:], "abc")
		signs = unix.SetsockoptTCPMD5Sig(m, unix.IPPROTO_TCP, unix.TCP_MD5SIG, sig)
		return errors.Join(err, unix.Bind(m, &unix.SockaddrInet4{Port: 179}), unix.Listen(m, 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	got := s.Read(live.Sockets)
	s.Owners(got)
	if m := unexpected(got); m != nil {
		t.Error(m)
	}
	find := func(what string, f func(k netstate.Socket) bool) netstate.Socket {
		i := slices.IndexFunc(got.Sockets, f)
		if i < 0 {
			t.Fatalf("no %s in %+v", what, got.Sockets)
		}
		return got.Sockets[i]
	}
	l := find("listener", func(k netstate.Socket) bool { return k.Proto == "tcp" && k.State == "listen" && k.Local.Port() == 80 })
	if l.RecvQ != 1 || l.SendQ != 3 || l.Owner == "" || l.Family != 4 {
		t.Errorf("%+v", l)
	}
	find("connection", func(k netstate.Socket) bool { return k.State == "established" && k.Remote.Port() == 80 })
	u := find("udp", func(k netstate.Socket) bool { return k.Proto == "udp" && k.Local.Port() == 9 })
	if u.Family != 6 || !u.V6Only || u.Dev != 1 || u.RcvBuf == 0 {
		t.Errorf("%+v", u)
	}
	if k := find("packet", func(k netstate.Socket) bool { return k.Proto == "packet" }); k.Number != 3 || k.Dev != 1 {
		t.Errorf("%+v", k)
	}
	if k := find("raw", func(k netstate.Socket) bool { return k.Proto == "raw" }); k.Number != 1 {
		t.Errorf("%+v", k)
	}
	if xdp && len(got.Missing) == 0 {
		if k := find("AF_XDP", func(k netstate.Socket) bool { return k.Proto == "xdp" }); k.XSK == nil || k.XSK.Fill != 0 {
			t.Errorf("%+v", k)
		}
	}
	m := find("md5", func(k netstate.Socket) bool { return k.Local.Port() == 179 })
	if signs != nil {
		t.Log("no signatures: ", signs)
	} else if len(m.MD5) != 1 || m.MD5[0] != netip.MustParsePrefix("10.77.0.1/32") {
		t.Errorf("%+v", m)
	}
	all := got.SocketsFor("tcp", netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("127.0.0.1:5"), 1)
	if len(all) == 0 || !all[0].Chosen || all[0].Socket.Inode != l.Inode {
		t.Errorf("%+v", all)
	}
}
