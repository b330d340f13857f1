package sockets

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilterAnswers runs the filter over system calls.
func TestFilterAnswers(t *testing.T) {
	for _, goes := range []bool{false, true} {
		var prog []bpf.Instruction
		for _, f := range filter(goes) {
			prog = append(prog, bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}.Disassemble())
		}
		vm, err := bpf.NewVM(prog)
		if err != nil {
			t.Fatal(err)
		}
		answer := func(arch, nr uint32, addr uint64) uint32 {
			b := make([]byte, 64) // the machine loads as from packets: big endian
			binary.BigEndian.PutUint32(b[dataNr:], nr)
			binary.BigEndian.PutUint32(b[dataArch:], arch)
			binary.BigEndian.PutUint32(b[dataAddr:], uint32(addr))
			binary.BigEndian.PutUint32(b[dataAddr+4:], uint32(addr>>32))
			v, err := vm.Run(b)
			if err != nil {
				t.Fatal(err)
			}
			return uint32(v)
		}
		want := map[uint32]uint32{unix.SYS_IO_URING_SETUP: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
		for _, nr := range asked {
			want[nr] = unix.SECCOMP_RET_USER_NOTIF
		}
		for _, nr := range naming {
			if goes {
				want[nr] = unix.SECCOMP_RET_USER_NOTIF
			}
		}
		const x32 = 0x40000000 // __X32_SYSCALL_BIT
		for nr := range uint32(600) {
			for _, addr := range []uint64{0, 1, 0x7fff_0000_0000} {
				w, ok := want[nr]
				if !ok {
					w = unix.SECCOMP_RET_ALLOW
				}
				if nr == unix.SYS_SENDTO && goes && addr != 0 {
					w = unix.SECCOMP_RET_USER_NOTIF
				}
				if got := answer(arch(), nr, addr); got != w {
					t.Errorf("call %d, fifth argument %#x: %#x, want %#x", nr, addr, got, w)
				}
			}
			for _, other := range []uint32{answer(unix.AUDIT_ARCH_I386, nr, 1), answer(arch(), nr|x32, 1)} {
				if other != unix.SECCOMP_RET_ALLOW {
					t.Errorf("call %d of another architecture: %#x", nr, other)
				}
			}
		}
	}
}

func TestSockaddr(t *testing.T) {
	for _, a := range []string{"10.0.0.1:80", "[2001:db8::1]:443", "[fe80::1]:1", "0.0.0.0:0", "[::]:65535", "[::ffff:10.0.0.1]:80"} {
		want := netip.MustParseAddrPort(a)
		family := unix.AF_INET6
		if want.Addr().Is4() {
			family = unix.AF_INET
		}
		b := sockaddr(family, want, 7)
		if got, ok := parseSockaddr(b); !ok || got != want {
			t.Errorf("%s comes back as %v, %v", a, got, ok)
		}
		if _, ok := parseSockaddr(b[:7]); ok {
			t.Errorf("%s: 7 bytes are enough", a)
		}
	}
	if got, _ := parseSockaddr(sockaddr(unix.AF_INET6, netip.MustParseAddrPort("10.0.0.1:80"), 0)); got.String() != "[::ffff:10.0.0.1]:80" {
		t.Errorf("an address of IPv4 in a socket of IPv6 is %v", got)
	}
}

func TestDestination(t *testing.T) {
	for _, c := range []struct{ text, in, out string }{
		{"10.0.0.1", "10.0.0.1:5", "10.0.0.2:5"},
		{"10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:81"},
		{"10.0.0.0/8", "[::ffff:10.9.9.9]:1", "11.0.0.0:1"},
		{"10.0.0.0/8:80", "10.1.0.1:80", "10.1.0.1:8"},
		{"2001:db8::/32", "[2001:db8::1]:1", "[2001:db9::1]:1"},
		{"[2001:db8::1]:443", "[2001:db8::1]:443", "[2001:db8::1]:444"},
	} {
		d, err := ParseDestination(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if !d.has(netip.MustParseAddrPort(c.in)) || d.has(netip.MustParseAddrPort(c.out)) {
			t.Errorf("%s is %v", c.text, d)
		}
		if again, err := ParseDestination(d.String()); err != nil || again != d {
			t.Errorf("%s as %s is %v, %v", c.text, d, again, err)
		}
	}
	for _, bad := range []string{"", "example", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1/33", ":80"} {
		if d, err := ParseDestination(bad); err == nil {
			t.Errorf("%q is %v", bad, d)
		}
	}
}

func FuzzSockaddr(f *testing.F) {
	f.Add(sockaddr(unix.AF_INET, netip.MustParseAddrPort("10.0.0.1:80"), 0))
	f.Add(sockaddr(unix.AF_INET6, netip.MustParseAddrPort("[fe80::1]:80"), 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseSockaddr(b)
		if !ok {
			return
		}
		family := unix.AF_INET
		if a.Addr().Is6() {
			family = unix.AF_INET6
		}
		if again, ok := parseSockaddr(sockaddr(family, a, 0)); !ok || again != a {
			t.Errorf("%v comes back as %v", a, again)
		}
	})
}

func FuzzDestination(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8:80", "[2001:db8::1]:443", "::/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDestination(s)
		if err != nil {
			return
		}
		if again, err := ParseDestination(d.String()); err != nil || again != d {
			t.Errorf("%q is %v, and that %v, %v", s, d, again, err)
		}
	})
}
