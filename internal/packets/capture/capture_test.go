package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fathom-trace/fathom/answers/packet"
)

func TestParseTerm(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Term
		err  string
	}{
		{"skb.mark == 5", Term{[]string{"mark"}, "==", 5}, ""},
		{" skb.dev.mtu<1500 ", Term{[]string{"dev", "mtu"}, "<", 1500}, ""},
		{"skb.len >= 0x40", Term{[]string{"len"}, ">=", 64}, ""},
		{"skb.len <= 7", Term{[]string{"len"}, "<=", 7}, ""},
		{"skb.sk.sk_priority != -1", Term{[]string{"sk", "sk_priority"}, "!=", -1}, ""},
		{"skb.mark & 0xff", Term{[]string{"mark"}, "&", 255}, ""},
		{"skb.mark > x", Term{}, `skb.mark > x: "x" is not a number`},
		{"skb.mark", Term{}, "skb.mark: no comparison: ==, !=, <, <=, >, >= or &"},
	} {
		got, ok, err := ParseTerm(c.in)
		if !ok || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%q: ok %v, %v; want %q", c.in, ok, err, c.err)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: -want +got\n%s", c.in, diff)
		}
		if again, _, err := ParseTerm(got.String()); c.err == "" && (err != nil || cmp.Diff(got, again) != "") {
			t.Errorf("%v, written and read: %v, %v", got, again, err)
		}
	}
	if _, ok, err := ParseTerm("udp"); ok || err != nil {
		t.Errorf("udp is a term: %v", err)
	}
}

// record is one as a program sends it.
func record(k packet.Kind, change func(r []byte)) []byte {
	r := make([]byte, recSize)
	binary.LittleEndian.PutUint64(r[recKind:], uint64(k))
	if change != nil {
		change(r)
	}
	return r
}

func TestDecode(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	c := &Capture{texts: map[string]string{}, calls: []string{"sendto", "connect"}}
	for _, x := range []struct {
		name string
		rec  []byte
		want packet.Event
	}{
		{"a packet", record(packet.Rx, func(r []byte) {
			le.PutUint64(r[recSkb:], 1)
			le.PutUint64(r[recPidTgid:], 7<<32|8)
			copy(r[recDev:], "eth0")
			be.PutUint16(r[recProto:], 0x800)
			r[recFlags] = flagTagged | flagL2
			le.PutUint16(r[recCaptured:], 3)
			copy(r[recBytes:], "abcd")
			le.PutUint32(r[recStackLen:], 24)
			le.PutUint64(r[recStack:], 11)
			le.PutUint64(r[recStack+16:], 12)
		}), packet.Event{Kind: packet.Rx, Skb: 1, PID: 7, TID: 8, Dev: "eth0", Proto: 0x800, Tagged: true, L2: true, Bytes: []byte("abc"), Stack: []uint64{11, 12}}},
		{"segments of a packet that is none of several", record(packet.Queue, func(r []byte) { le.PutUint16(r[recGSOSegs:], 3) }), packet.Event{Kind: packet.Queue}},
		{"segments", record(packet.Queue, func(r []byte) { le.PutUint16(r[recGSOSegs:], 3); le.PutUint16(r[recGSOSize:], 1448) }), packet.Event{Kind: packet.Queue, GSO: 3, GSOSize: 1448}},
		{"more bytes than there are", record(packet.Rx, func(r []byte) {
			le.PutUint16(r[recCaptured:], maxBytes+1)
			le.PutUint32(r[recStackLen:], 8*maxFrames+8)
		}), packet.Event{Kind: packet.Rx}},
		{"an error in place of a stack", record(packet.Rx, func(r []byte) { le.PutUint32(r[recStackLen:], 0xfffffff2) }), packet.Event{Kind: packet.Rx}},
		{"a call with an address", record(packet.Refused, func(r []byte) {
			le.PutUint16(r[recCall:], 1)
			b := r[recBytes:]
			le.PutUint16(b[refL4:], 17)
			le.PutUint16(b[refPort:], 4711)
			copy(b[refTo:], []byte{2, 0, 0, 9, 10, 0, 0, 2})
		}), packet.Event{Kind: packet.Refused, Call: "connect", L4: 17, Port: 4711, To: netip.MustParseAddrPort("10.0.0.2:9")}},
		{"a call on a connection", record(packet.Refused, func(r []byte) {
			b := r[recBytes:]
			le.PutUint16(b[refFamily:], afINET6)
			be.PutUint16(b[refDport:], 80)
			b[refDaddr6+15] = 1
		}), packet.Event{Kind: packet.Refused, Call: "sendto", To: netip.MustParseAddrPort("[::1]:80")}},
		{"an error of XDP", record(packet.XDPError, func(r []byte) { le.PutUint32(r[recLen:], 14) }), packet.Event{Kind: packet.XDPError, MapType: 14}},
	} {
		got, ok := c.decode(x.rec)
		if !ok {
			t.Errorf("%s: no event", x.name)
		}
		if diff := cmp.Diff(x.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", x.name, diff)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, recStack-1), record(packet.NumKinds, nil)} {
		if e, ok := c.decode(bad); ok {
			t.Errorf("%d bytes are an event: %v", len(bad), e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(record(packet.Rx, nil))
	f.Add(record(packet.Refused, nil))
	f.Add(record(packet.Drop, nil)[:recStack])
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Capture{texts: map[string]string{}}
		if e, ok := c.decode(b); ok && (len(e.Bytes) > maxBytes || len(e.Stack) > maxFrames) {
			t.Errorf("%d bytes, %d frames", len(e.Bytes), len(e.Stack))
		}
	})
}
