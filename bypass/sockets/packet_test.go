package sockets

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/wire/header"
)

var someDatagrams = []datagram{
	{netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.2:53"), []byte("hello")},
	{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:65535"), nil},
	{netip.MustParseAddrPort("[fd00::1]:1000"), netip.MustParseAddrPort("[fd00::2]:53"), bytes.Repeat([]byte{0xff}, 1001)},
}

// right says if the checksums of a packet are.
func right(p []byte) bool {
	var s header.Stack
	s.Walk(p, header.KindIP)
	return s.Verify(p) == header.Right
}

// TestDatagram: what is written is read, its checksums are right, and a part of it is no datagram.
func TestDatagram(t *testing.T) {
	for _, want := range someDatagrams {
		b := want.bytes()
		got, ok := parseDatagram(b)
		if !ok || got.from != want.from || got.to != want.to || !bytes.Equal(got.payload, want.payload) || !right(b) {
			t.Errorf("%+v, %v of %+v", got, ok, want)
		}
		for i := range b {
			if _, ok := parseDatagram(b[:i]); ok {
				t.Errorf("%d of %d bytes are a datagram", i, len(b))
			}
		}
	}
	four := someDatagrams[0].bytes()
	four[6] = 0x20
	if _, ok := parseDatagram(four); ok {
		t.Error("a fragment is a datagram")
	}
}

// TestFailure: what the error queue says becomes the error of ICMP again, about the datagram that was sent.
func TestFailure(t *testing.T) {
	said := func(level, kind int, extended ...byte) []byte {
		b := make([]byte, unix.CmsgSpace(len(extended)))
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(extended))))
		binary.NativeEndian.PutUint32(b[8:], uint32(level))
		binary.NativeEndian.PutUint32(b[12:], uint32(kind))
		copy(b[unix.CmsgLen(0):], extended)
		return b
	}
	for i, oob := range map[int][]byte{
		0: said(unix.IPPROTO_IP, unix.IP_RECVERR, 111, 0, 0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		2: said(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 111, 0, 0, 0, 3, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0),
	} {
		sent := someDatagrams[i]
		p, ok := failure(sent, oob)
		if !ok || !right(p) || !bytes.HasSuffix(p, sent.bytes()) {
			t.Errorf("%x, %v", p, ok)
			continue
		}
		icmp := p[len(p)-len(sent.bytes())-header.ICMPLen:]
		if icmp[0] != oob[unix.CmsgLen(0)+5] || icmp[1] != oob[unix.CmsgLen(0)+6] {
			t.Errorf("type %d, code %d", icmp[0], icmp[1])
		}
		if _, ok := failure(sent, said(unix.IPPROTO_IP, unix.IP_RECVERR, 90, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)); ok {
			t.Error("an error of this host is one of ICMP")
		}
		if _, ok := failure(datagram{to: sent.to}, oob); ok {
			t.Error("an error about nobody's datagram")
		}
	}
}

func FuzzParseDatagram(f *testing.F) {
	for _, d := range someDatagrams {
		f.Add(d.bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := parseDatagram(b)
		if !ok {
			return
		}
		if again, ok := parseDatagram(d.bytes()); !ok || again.from != d.from || again.to != d.to || !bytes.Equal(again.payload, d.payload) {
			t.Errorf("%+v is read as %+v, %v", d, again, ok)
		}
	})
}
