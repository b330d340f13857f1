package sockdiag_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
	"github.com/fathom-trace/fathom/netstate/sockdiag"
)

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func words(n ...uint32) []byte {
	var b []byte
	for _, x := range n {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

// listener is struct inet_diag_msg of a socket on 10.0.0.1:179 that wants signatures.
func listener() []byte {
	b := make([]byte, 72)
	b[0], b[1] = sockdiag.INet, 10
	binary.BigEndian.PutUint16(b[4:], 179)
	copy(b[8:], []byte{10, 0, 0, 1})
	copy(b[40:], words(3, 5, 0, 0, 1, 4, 1000, 77))
	b = nlattr.Append(b, 7, words(100, 200, 0, 0, 0, 0, 0, 0, 9))
	md5 := make([]byte, 100)
	md5[0], md5[1] = sockdiag.INet, 24
	copy(md5[4:], []byte{10, 77, 0, 0})
	return nlattr.Append(b, 18, md5)
}

func TestDecode(t *testing.T) {
	got, err := sockdiag.DecodeINet(sockdiag.TCP, listener())
	want := netstate.Socket{
		Proto: "tcp", Family: 4, State: "listen", Local: netip.MustParseAddrPort("10.0.0.1:179"), Remote: netip.MustParseAddrPort("0.0.0.0:0"), Dev: 3,
		Cookie: 5, RecvQ: 1, SendQ: 4, UID: 1000, Inode: 77, RcvMem: 100, RcvBuf: 200, Drops: 9, MD5: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")},
	}
	if d := cmp.Diff(want, got, compare); d != "" || err != nil {
		t.Error(d, err)
	}
	b := append([]byte{sockdiag.Packet, 3, 3, 0}, words(8, 1, 0)...)
	b = nlattr.Append(nlattr.Append(b, 0, words(2, 0, 0, 0, 0, 0)), 7, make([]byte, 8))
	got, err = sockdiag.DecodePacket(b)
	if d := cmp.Diff(netstate.Socket{Proto: "packet", Number: 3, Inode: 8, Cookie: 1, Dev: 2, Filter: true}, got, compare); d != "" || err != nil {
		t.Error(d, err)
	}
	b = append([]byte{sockdiag.XDP, 3, 0, 0}, words(8, 1, 0)...)
	b = nlattr.Append(nlattr.Append(b, 1, words(4, 2)), 9, words(1, 0, 0, 0, 3, 0, 5, 0))
	got, err = sockdiag.DecodeXDP(b)
	if d := cmp.Diff(netstate.Socket{Proto: "xdp", Inode: 8, Cookie: 1, Dev: 4, XSK: &netstate.XSK{Link: 4, Queue: 2, RxDropped: 1, RingFull: 3, FillEmpty: 5}}, got, compare); d != "" || err != nil {
		t.Error(d, err)
	}
	b = append([]byte{sockdiag.VSock, 1, 10, 0}, words(0xffffffff, 5000, 0xffffffff, 0xffffffff, 8, 1, 0)...)
	got, err = sockdiag.DecodeVSock(b)
	if d := cmp.Diff(netstate.Socket{Proto: "vsock", State: "listen", Number: 5000, Inode: 8, Cookie: 1}, got, compare); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := sockdiag.DecodeVSock(b[:31]); err == nil {
		t.Error("a message that is cut short is no error")
	}
	if _, err := sockdiag.DecodeINet(sockdiag.UDP, listener()[:50]); err == nil {
		t.Error("half a message is no error")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(listener())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range []uint8{sockdiag.TCP, sockdiag.Raw} {
			_, _ = sockdiag.DecodeINet(p, b)
		}
		_, _ = sockdiag.DecodePacket(b)
		_, _ = sockdiag.DecodeXDP(b)
		_, _ = sockdiag.DecodeVSock(b)
	})
}
