package pcapng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/internal/oracle"
)

// sample is a file with everything the writer can write, and its packets.
func sample(t *testing.T) ([]byte, []Packet) {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, Section{OS: "Linux 6.18", Application: "fathom", Comments: []string{"a lab"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []Interface{{Link: LinkEthernet, Snaplen: 65535, Name: "eth0", Description: "netns a"}, {Link: LinkRaw, Name: "tun0"}} {
		if _, err := w.Add(i); err != nil {
			t.Fatal(err)
		}
	}
	want := []Packet{
		{Interface: 0, Time: 1700000000_123456789, Data: []byte("frame"), WireLen: 1500, Comments: []string{"dropped in ip_rcv_core", "OTHERHOST"}, Flags: Inbound},
		{Interface: 1, Time: 1700000001_000000001, Data: []byte{}, WireLen: 60},
		{Interface: 1, Time: 1, Data: []byte("12345678"), WireLen: 8, Flags: Outbound, Dropped: 3, ID: 1 << 60, Queue: 2},
	}
	for _, k := range want {
		if err := w.Write(k); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteStatistics(Statistics{Interface: 1, Time: 5, Received: 10, Dropped: 1}); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Packet{Interface: 2}); err == nil {
		t.Error("a packet of no interface is written")
	}
	return b.Bytes(), want
}

// all reads a file to its end.
func all(r *Reader) ([]Packet, error) {
	var out []Packet
	for {
		k, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		k.Data = append([]byte{}, k.Data...)
		out = append(out, k)
	}
}

func TestRoundTrip(t *testing.T) {
	file, want := sample(t)
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	got, err := all(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packets (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(Section{OS: "Linux 6.18", Application: "fathom", Comments: []string{"a lab"}}, r.Section()); diff != "" {
		t.Errorf("section (-want +got)\n%s", diff)
	}
	ifs := []Interface{{Link: LinkEthernet, Snaplen: 65535, Name: "eth0", Description: "netns a"}, {Link: LinkRaw, Name: "tun0"}}
	if diff := cmp.Diff(ifs, r.Interfaces(), cmpopts.IgnoreUnexported(Interface{})); diff != "" {
		t.Errorf("interfaces (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]Statistics{{Interface: 1, Time: 5, Received: 10, Dropped: 1}}, r.Statistics()); diff != "" {
		t.Errorf("statistics (-want +got)\n%s", diff)
	}
}

// TestCut: a file cut anywhere gives its whole packets, and an error that says where it ends.
func TestCut(t *testing.T) {
	file, want := sample(t)
	for n := range len(file) {
		r, err := NewReader(bytes.NewReader(file[:n]))
		if err != nil {
			var fe *bin.FormatError
			if !errors.As(err, &fe) {
				t.Fatalf("cut at %d: %v", n, err)
			}
			continue
		}
		got, _ := all(r)
		if diff := cmp.Diff(want[:len(got)], got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("cut at %d: (-want +got)\n%s", n, diff)
		}
	}
}

// TestGopacket reads what gopacket writes: pcapng, and pcap in micro- and nanoseconds.
func TestGopacket(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var ng, micro, nano bytes.Buffer
	w, err := pcapgo.NewNgWriter(&ng, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	wm, wn := pcapgo.NewWriter(&micro), pcapgo.NewWriterNanos(&nano)
	_ = wm.WriteFileHeader(65536, layers.LinkTypeEthernet)
	_ = wn.WriteFileHeader(65536, layers.LinkTypeEthernet)
	var want []Packet
	for range 200 {
		data := make([]byte, r.IntN(100))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		at := time.Unix(int64(r.Uint32()), r.Int64N(second)/1000*1000)
		ci := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(data), Length: len(data) + r.IntN(9)}
		for _, f := range []func(gopacket.CaptureInfo, []byte) error{w.WritePacket, wm.WritePacket, wn.WritePacket} {
			if err := f(ci, data); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, Packet{Time: at.UnixNano(), Data: data, WireLen: ci.Length})
	}
	_ = w.Flush()
	for _, tt := range []struct {
		name string
		file []byte
	}{{"pcapng", ng.Bytes()}, {"pcap", micro.Bytes()}, {"pcap in nanoseconds", nano.Bytes()}} {
		p, err := NewReader(bytes.NewReader(tt.file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := all(p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-gopacket +we)\n%s", tt.name, diff)
		}
	}
}

// TestTcpdump: tcpdump reads what we write.
func TestTcpdump(t *testing.T) {
	path := oracle.Path(t, "tcpdump")
	var b bytes.Buffer
	w, _ := NewWriter(&b, Section{Application: "fathom"})
	_, _ = w.Add(Interface{Link: LinkRaw, Name: "tun0"})
	pkt := []byte("\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x13\x88\x13\x89\x00\x08\x00\x00")
	_ = w.Write(Packet{Time: 1700000000_123456789, Data: pkt, Comments: []string{"a comment"}, Flags: Inbound})
	cmd := exec.Command(path, "-nttr", "-", "--nano")
	cmd.Stdin = &b
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("1700000000.123456789 IP 10.0.0.1.5000 > 10.0.0.2.5001: UDP, length 0", strings.TrimSpace(string(out))); diff != "" {
		t.Errorf("(-want +tcpdump)\n%s", diff)
	}
}

// blockOf makes a block in a byte order.
func blockOf(o binary.AppendByteOrder, typ uint32, body []byte) []byte {
	n := uint32(len(body) + 12)
	b := o.AppendUint32(o.AppendUint32(nil, typ), n)
	return o.AppendUint32(append(b, body...), n)
}

// TestBigEndian reads a section of a big-endian machine, with the two older kinds of packet blocks, behind one of ours.
func TestBigEndian(t *testing.T) {
	o := binary.BigEndian
	file, _ := sample(t)
	file = append(file, blockOf(o, blockSection, append(o.AppendUint32(nil, byteOrderMagic), 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255))...)
	file = append(file, blockOf(o, blockInterface, []byte{0, 1, 0, 0, 0, 0, 0, 3, 0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 100})...)
	file = append(file, blockOf(o, 0xbad, []byte{1, 2, 3, 4})...)
	file = append(file, blockOf(o, blockSimple, []byte{0, 0, 0, 9, 'a', 'b', 'c', 0})...)
	file = append(file, blockOf(o, blockPacket, []byte{0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 2, 'x', 'y', 0, 0})...)
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	got, err := all(r)
	if err != nil {
		t.Fatal(err)
	}
	want := []Packet{{Data: []byte("abc"), WireLen: 9}, {Time: 100*second + 5000, Data: []byte("xy"), WireLen: 2, Dropped: 7}}
	if diff := cmp.Diff(want, got[3:]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	file, _ := sample(t)
	put := func(at int, v uint32) []byte {
		b := bytes.Clone(file)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "file header at 0x0: the file ends within its first 4 bytes"},
		{"text", []byte("hello, world"), "file header at 0x0: 0x6c6c6568 is neither pcapng nor pcap"},
		{"length", put(4, 13), "block header at 0x0: length 13"},
		{"huge", put(4, 0x7ffffffc), "block header at 0x0: length 2147483644"},
		{"byte order", put(8, 1), "section header at 0x0: byte order mark 0x01000000"},
		{"version", put(12, 2), "section header at 0xe: version 2, want 1"},
	} {
		r, err := NewReader(bytes.NewReader(tt.file))
		if err == nil {
			_, err = all(r)
		}
		if err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestTime(t *testing.T) {
	for _, tt := range []struct {
		resolution uint8
		offset     int64
		at         uint64
		want       int64
	}{
		{6, 0, 1_500_000, 1_500_000_000},
		{9, 0, 1_500_000_001, 1_500_000_001},
		{0, 0, 7, 7 * second},
		{12, 0, 1_500_000_000_000, 1_500_000_000},
		{0x80 | 10, 0, 1024 + 512, 1_500_000_000},
		{0x80 | 63, 0, 1 << 62, 500_000_000},
		{0x80 | 64, 0, 1 << 63, 500_000_000},
		{0x80 | 70, 0, 1 << 63, 500_000_000 >> 6},
		{6, 100, 1, 100*second + 1000},
		{6, -100, 1, -100*second + 1000},
		{0, 0, math.MaxUint64, math.MaxInt64},
		{60, 0, math.MaxUint64, 1_844_674_407},
	} {
		i := Interface{resolution: tt.resolution, offset: tt.offset}
		if got := i.time(tt.at); got != tt.want {
			t.Errorf("resolution %#x, offset %d, %d: got %d, want %d", tt.resolution, tt.offset, tt.at, got, tt.want)
		}
	}
}

func FuzzReader(f *testing.F) {
	var t testing.T
	file, _ := sample(&t)
	f.Add(file)
	f.Add(fmt.Appendf(nil, "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x03\x00\x00\x00abc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		for {
			k, err := r.Next()
			if err != nil {
				return
			}
			if k.Interface < 0 || k.Interface >= len(r.Interfaces()) || len(k.Data) > len(b) {
				t.Fatalf("packet of interface %d with %d bytes", k.Interface, len(k.Data))
			}
		}
	})
}
