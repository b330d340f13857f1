package capture

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/fathom-trace/fathom/answers/packet"
)

// Layout of a record, in bytes; numbers are in the machine's order, little-endian on all that fathom runs on.
const (
	recKind      = 8 * 0
	recTime      = 8 * 1
	recSkb       = 8 * 2
	recArg       = 8 * 3
	recHead      = 8 * 4
	recSock      = 8 * 5
	recReason    = 8*6 + 0
	recCPU       = 8*6 + 4
	recNetns     = 8*7 + 0
	recIfindex   = 8*7 + 4
	recDev       = 8 * 8 // 16 bytes
	recLen       = 8*10 + 0
	recMark      = 8*10 + 4
	recPidTgid   = 8 * 11
	recComm      = 8 * 12 // 16 bytes
	recProto     = 8*14 + 0
	recVLAN      = 8*14 + 2
	recType      = 8*14 + 4
	recFlags     = 8*14 + 5
	recL3        = 8*14 + 6
	recIIF       = 8*15 + 0
	recStackLen  = 8*15 + 4
	recGSOSize   = 8*16 + 0
	recGSOSegs   = 8*16 + 2
	recCaptured  = 8*16 + 4
	recCall      = 8*16 + 6
	recBytes     = 8 * 17
	maxBytes     = 128
	recStack     = recBytes + maxBytes
	maxFrames    = 24
	recSize      = recStack + 8*maxFrames
	flagTagged   = 1
	flagLast     = 2
	flagL2       = 4
	flagTaggedBy = 8 // vlan_proto says if there is a tag
)

// decode reads a record; ok is false if it is none.
func (c *Capture) decode(rec []byte) (e packet.Event, ok bool) {
	if len(rec) < recStack {
		return e, false
	}
	le := binary.LittleEndian
	if k := le.Uint64(rec); k >= uint64(packet.NumKinds) {
		return e, false
	}
	flags := rec[recFlags]
	pt := le.Uint64(rec[recPidTgid:])
	e = packet.Event{
		Kind: packet.Kind(le.Uint64(rec[recKind:])), Time: le.Uint64(rec[recTime:]), Skb: le.Uint64(rec[recSkb:]), Arg: le.Uint64(rec[recArg:]),
		Head: le.Uint64(rec[recHead:]), Sock: le.Uint64(rec[recSock:]), Reason: int32(le.Uint32(rec[recReason:])),
		CPU: le.Uint32(rec[recCPU:]), Netns: le.Uint32(rec[recNetns:]), Ifindex: le.Uint32(rec[recIfindex:]), IIF: le.Uint32(rec[recIIF:]),
		Dev: c.text(rec[recDev : recDev+16]), Len: le.Uint32(rec[recLen:]), Mark: le.Uint32(rec[recMark:]),
		PID: uint32(pt >> 32), TID: uint32(pt), Comm: c.text(rec[recComm : recComm+16]),
		Proto: binary.BigEndian.Uint16(rec[recProto:]), VLAN: le.Uint16(rec[recVLAN:]), Type: rec[recType],
		Tagged: flags&flagTagged != 0, Last: flags&flagLast != 0, L2: flags&flagL2 != 0, L3: le.Uint16(rec[recL3:]),
	}
	if size, segs := le.Uint16(rec[recGSOSize:]), le.Uint16(rec[recGSOSegs:]); size != 0 {
		e.GSO, e.GSOSize = segs, size
	}
	if e.Kind == packet.XDPError {
		e.MapType, e.Len = e.Len, 0
	}
	if e.Kind == packet.Refused {
		refused(&e, rec[recBytes:recBytes+maxBytes], c.calls, int(le.Uint16(rec[recCall:])))
	} else if n := int(le.Uint16(rec[recCaptured:])); n > 0 && n <= maxBytes {
		e.Bytes = append([]byte(nil), rec[recBytes:recBytes+n]...)
	}
	if n := int(int32(le.Uint32(rec[recStackLen:]))); n > 0 && n <= 8*maxFrames && len(rec) >= recStack+n {
		for i := 0; i+8 <= n; i += 8 {
			if a := le.Uint64(rec[recStack+i:]); a != 0 {
				e.Stack = append(e.Stack, a)
			}
		}
	}
	return e, true
}

// Layout of what a refused system call leaves where packets have their bytes.
const (
	refFamily = 0  // uint16
	refL4     = 2  // uint16
	refPort   = 4  // uint16, host order
	refDport  = 6  // uint16, network order
	refDaddr  = 8  // 4 bytes
	refDaddr6 = 16 // 16 bytes
	refTo     = 32 // struct sockaddr, as the process gave it: 28 bytes
	refSize   = 64
)

// Address families (include/linux/socket.h).
const (
	afINET   = 2
	afINET6  = 10
	afPACKET = 17
)

// refused reads what is known of a system call: the address it was given, else that of the connection.
func refused(e *packet.Event, b []byte, calls []string, call int) {
	if call < len(calls) {
		e.Call = calls[call]
	}
	le, be := binary.LittleEndian, binary.BigEndian
	e.L4, e.Port = uint8(le.Uint16(b[refL4:])), le.Uint16(b[refPort:])
	switch to := b[refTo:]; le.Uint16(to) {
	case afINET: // struct sockaddr_in: family, port, address
		e.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(to[4:8])), be.Uint16(to[2:]))
		return
	case afINET6: // struct sockaddr_in6: family, port, flow, address
		e.To = netip.AddrPortFrom(netip.AddrFrom16([16]byte(to[8:24])), be.Uint16(to[2:]))
		return
	}
	switch le.Uint16(b[refFamily:]) {
	case afINET:
		e.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[refDaddr:refDaddr+4])), be.Uint16(b[refDport:]))
	case afINET6:
		e.To = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[refDaddr6:refDaddr6+16])), be.Uint16(b[refDport:]))
	case afPACKET:
		e.Proto = be.Uint16(b[refTo+2:]) // struct sockaddr_ll
	}
}

// text gives a string of C. The same few names come again and again: each is kept once.
func (c *Capture) text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if s, ok := c.texts[string(b)]; ok {
		return s
	}
	if len(c.texts) >= mostTexts {
		clear(c.texts)
	}
	s := string(b)
	c.texts[s] = s
	return s
}

const mostTexts = 4096
