package procnet

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/sockdiag"
)

// IGMP reads net/igmp: a line for each device, below it one for each group, whose address is printed as a number.
func IGMP(text []byte) []netstate.Group {
	var out []netstate.Group
	link := 0
	lines(text, func(w []string) {
		if n, err := strconv.Atoi(w[0]); err == nil && len(w) > 2 && !isGroup(w) {
			link = n
			return
		}
		if n, err := strconv.ParseUint(w[0], 16, 32); err == nil && isGroup(w) && link != 0 {
			var a [4]byte
			binary.LittleEndian.PutUint32(a[:], uint32(n))
			out = append(out, netstate.Group{Link: link, Addr: netip.AddrFrom4(a)})
		}
	})
	return out
}

// isGroup tells a group's line, whose first word has eight hexadecimal digits and third a colon: "010000E0 1 0:00000000 0".
func isGroup(w []string) bool {
	return len(w) >= 3 && len(w[0]) == 8 && strings.Contains(w[2], ":") && w[2] != ":"
}

// IGMP6 reads net/igmp6: index, device, address, users, flags, timer.
func IGMP6(text []byte) []netstate.Group {
	var out []netstate.Group
	lines(text, func(w []string) {
		if len(w) < 3 {
			return
		}
		link, err := strconv.Atoi(w[0])
		b, err2 := hex.DecodeString(w[2])
		if a, ok := netip.AddrFromSlice(b); err == nil && err2 == nil && ok && link > 0 {
			out = append(out, netstate.Group{Link: link, Addr: a})
		}
	})
	return out
}

// Sockets reads net/tcp, udp, udplite, raw and the same of IPv6 (with "6" at the end of name). They have less to say than
// sock_diag: no devices, no buffers' sizes.
func Sockets(name string, text []byte) []netstate.Socket {
	proto, six := strings.CutSuffix(name, "6")
	family := 4
	if six {
		family = 6
	}
	var out []netstate.Socket
	lines(text, func(w []string) {
		if len(w) < 10 || !strings.HasSuffix(w[0], ":") {
			return
		}
		local, ok1 := hexAddrPort(w[1])
		remote, ok2 := hexAddrPort(w[2])
		state, err := strconv.ParseUint(w[3], 16, 8)
		if !ok1 || !ok2 || err != nil {
			return
		}
		tx, rx, _ := strings.Cut(w[4], ":")
		uid, _ := strconv.ParseUint(w[7], 10, 32)
		inode, _ := strconv.ParseUint(w[9], 10, 64)
		s := netstate.Socket{
			Proto: proto, Family: family, State: sockdiag.StateName(proto, uint8(state)), Local: local, Remote: remote,
			SendQ: hex32(tx), RecvQ: hex32(rx), UID: uint32(uid), Inode: inode,
		}
		if proto != "tcp" {
			s.RcvMem = s.RecvQ
			drops, _ := strconv.ParseUint(w[len(w)-1], 10, 32)
			s.Drops = uint32(drops)
		}
		if proto == "raw" {
			s.Number = int(local.Port())
			s.Local, s.Remote = netip.AddrPortFrom(local.Addr(), 0), netip.AddrPortFrom(remote.Addr(), 0)
		}
		out = append(out, s)
	})
	return out
}

func hex32(s string) uint32 {
	n, _ := strconv.ParseUint(s, 16, 32)
	return uint32(n)
}

// hexAddrPort reads "0100007F:0035": words of the address as numbers of the machine (little-endian), the port as a number.
func hexAddrPort(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.LittleEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(p)), ok
}

// Packets reads net/packet.
func Packets(text []byte) []netstate.Socket {
	var out []netstate.Socket
	lines(text, func(w []string) {
		if len(w) < 9 || w[0] == "sk" {
			return
		}
		number, err := strconv.ParseUint(w[3], 16, 16)
		dev, err2 := strconv.Atoi(w[4])
		mem, _ := strconv.ParseUint(w[6], 10, 32)
		uid, _ := strconv.ParseUint(w[7], 10, 32)
		inode, _ := strconv.ParseUint(w[8], 10, 64)
		if err == nil && err2 == nil {
			out = append(out, netstate.Socket{Proto: "packet", Number: int(number), Dev: dev, RcvMem: uint32(mem), UID: uint32(uid), Inode: inode})
		}
	})
	return out
}
