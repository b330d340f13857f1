package ctf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/hostile"
	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/traceevent"
)

// packed is metadata in LTTng's manner: a compact header of 5 and 27 bits with a variant for the large one, fields of odd
// widths, an enumeration, nested structs, sequences, text, and big endian integers.
const packed = `/* CTF 1.8 */
typealias integer { size = 5; align = 1; signed = false; } := uint5_t;
typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
trace { major = 1; minor = 8; byte_order = le;
	packet.header := struct { uint32_t magic; uint32_t stream_id; }; };
env { domain = "kernel"; tracer_major = 2; };
clock { name = "monotonic"; freq = 1000000000; offset = 1000; };
typealias integer { size = 27; align = 1; signed = false; map = clock.monotonic.value; } := uint27_clock_t;
typealias integer { size = 64; align = 8; signed = false; map = clock.monotonic.value; } := uint64_clock_t;
struct event_header_compact {
	enum : uint5_t { compact = 0 ... 30, extended = 31 } id;
	variant <id> {
		struct { uint27_clock_t timestamp; } compact;
		struct { uint32_t id; uint64_clock_t timestamp; } extended;
	} v;
} align(8);
stream { id = 7; event.header := struct event_header_compact;
	packet.context := struct { uint64_clock_t timestamp_begin; uint64_clock_t timestamp_end; uint64_t content_size; uint64_t packet_size; uint32_t events_discarded; uint32_t cpu_id; };
	event.context := struct { integer { size = 32; align = 8; signed = true; } _tid; };
};
event { name = "odd"; id = 3; stream_id = 7; fields := struct {
	integer { size = 3; align = 1; signed = true; } _three;
	integer { size = 13; align = 1; } _thirteen;
	integer { size = 32; align = 8; byte_order = be; base = 16; } _port;
	struct { uint8_t _a; uint16_t _b; } _in;
	enum : uint8_t { "one" = 1, two, many = 3 ... 9 } _e;
	variant <_e> { uint16_t one; string two; } _choice;
	uint8_t __n_length;
	uint16_t _n[__n_length];
	integer { size = 8; align = 8; encoding = UTF8; } _comm[4];
	string _s;
}; };
event { name = "far"; id = 400; stream_id = 7; fields := struct { uint64_t _x; }; };
`

// bitWriter writes little endian bits.
type bitWriter struct {
	b   []byte
	bit int
}

func (w *bitWriter) align(n int) {
	for w.bit%n != 0 {
		w.put(0, 1)
	}
}

func (w *bitWriter) put(v uint64, n int) {
	for i := range n {
		if w.bit%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.bit/8] |= byte(v>>i&1) << (w.bit % 8)
		w.bit++
	}
}

func (w *bitWriter) bytes(p ...byte) {
	w.align(8)
	for _, c := range p {
		w.put(uint64(c), 8)
	}
}

// packedStream is a stream of two packets of that trace.
func packedStream() []byte {
	var out []byte
	for packet := range 2 {
		w := &bitWriter{}
		w.put(packetMagic, 32)
		w.put(7, 32)
		start := uint64(packet)*1e9 + 134217000
		w.put(start, 64)
		w.put(start+1000, 64)
		sizes := w.bit
		w.put(0, 64)
		w.put(0, 64)
		w.put(uint64(packet*5), 32)
		w.put(2, 32)
		for i := range 3 {
			w.align(8)
			w.put(3, 5)
			w.put((start+uint64(i)*400)&(1<<27-1), 27) // goes over the end of 27 bits
			w.put(uint64(100+i), 32)
			w.put(uint64(8-1-i), 3)
			w.put(uint64(1000+i), 13)
			w.bytes(0x12, 0x34, 0x56, byte(i))
			w.bytes(byte(10+i), byte(20+i), 0)
			if i == 1 {
				w.bytes(2)
				w.bytes([]byte("hello\x00")...)
			} else {
				w.bytes(1, byte(i), 1)
			}
			w.bytes(byte(i))
			for k := range i {
				w.bytes(byte(k), 7)
			}
			w.bytes('a', 'b', 0, 0)
			w.bytes([]byte(fmt.Sprintf("text %d\x00", i))...)
		}
		w.align(8)
		w.put(31, 5)
		w.align(8)
		w.put(400, 32)
		w.put(start+1000, 64)
		w.put(99, 32)
		w.put(1<<40, 64)
		content := w.bit
		w.bytes(make([]byte, 13)...) // padding
		binary.LittleEndian.PutUint64(w.b[sizes/8:], uint64(content))
		binary.LittleEndian.PutUint64(w.b[sizes/8+8:], uint64(len(w.b))*8)
		out = append(out, w.b...)
	}
	return out
}

// read lists the events of a stream.
func read(t testing.TB, metadata string, b []byte) (out []string, err error) {
	t.Helper()
	m, err := ParseMetadata([]byte(metadata))
	if err != nil {
		return nil, err
	}
	tr, err := NewTrace(m, nil)
	if err != nil {
		return nil, err
	}
	s := tr.Open(bytes.NewReader(b), int64(len(b)), 0)
	for e := range traceevent.All(s) {
		if e.Format == nil {
			out = append(out, fmt.Sprintf("lost %d", e.Lost))
			continue
		}
		out = append(out, fmt.Sprintf("%d [%d] %d %s: %s", e.Time, e.CPU, e.Format.PIDField().Int(e.Rec), e.Format.Name, e.Format.AppendFields(nil, e.Rec)))
	}
	return out, s.Err()
}

// TestPacked reads bits in LTTng's manner.
func TestPacked(t *testing.T) {
	got, err := read(t, packed, packedStream())
	want := []string{
		"134217000 [2] 100 odd: three=-1 thirteen=1000 port=305419776 in_a=10 in_b=20 e=1 (one) choice_one=256 n={} comm=ab s=text 0",
		"134217400 [2] 101 odd: three=-2 thirteen=1001 port=305419777 in_a=11 in_b=21 e=2 (two) choice_two=hello n={0x700} comm=ab s=text 1",
		"134217800 [2] 102 odd: three=-3 thirteen=1002 port=305419778 in_a=12 in_b=22 e=1 (one) choice_one=258 n={0x700,0x701} comm=ab s=text 2",
		"134218000 [2] 99 far: x=1099511627776",
		"lost 5",
		"1134217000 [2] 100 odd: three=-1 thirteen=1000 port=305419776 in_a=10 in_b=20 e=1 (one) choice_one=256 n={} comm=ab s=text 0",
		"1134217400 [2] 101 odd: three=-2 thirteen=1001 port=305419777 in_a=11 in_b=21 e=2 (two) choice_two=hello n={0x700} comm=ab s=text 1",
		"1134217800 [2] 102 odd: three=-3 thirteen=1002 port=305419778 in_a=12 in_b=22 e=1 (one) choice_one=258 n={0x700,0x701} comm=ab s=text 2",
		"1134218000 [2] 99 far: x=1099511627776",
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
}

// TestPackedPeer: babeltrace2 reads the same out of that stream, so the test's own writing is right.
func TestPackedPeer(t *testing.T) {
	program := oracle.Path(t, "babeltrace2")
	dir := t.TempDir()
	for name, b := range map[string][]byte{"metadata": []byte(packed), "s": packedStream()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "--clock-cycles", "--no-delta", dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	want := `[00000000000134217400] odd: { cpu_id = 2 }, { tid = 101 }, { three = -2, thirteen = 1001, port = 0x12345601, in = { a = 11, b = 21 }, e = ( "two" : container = 2 ), choice = { "hello" }, _n_length = 1, n = [ [0] = 1792 ], comm = "ab", s = "text 1" }`
	if len(got) != 8 || got[1] != want {
		t.Errorf("babeltrace2 reads %d events; the second\n got %s\nwant %s", len(got), got[1], want)
	}
}

// TestMetadata: what is wrong is told with its place.
func TestMetadata(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"trace { major = 2; };", "CTF metadata at 0x10: version 2 of the format"},
		{"typealias foo := bar;", "the type foo, which is not defined"},
		{"typealias integer { size = 65; } := x;", "integer of 65 bits"},
		{"event { fields := struct { string s[n]; }; };", "a reference to n, which does not stand before"},
		{"/* no end", "a comment that does not end"},
		{"struct {" + strings.Repeat("struct {", 100), "nested too deeply"},
		{"event { name = \"a", "a literal that does not end"},
		{"what;", "unexpected \"what\""},
	} {
		_, err := read(t, tt.text, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: %v", tt.text, err)
		}
	}
}

// TestPacketsOfMetadata reads metadata that is in packets, as LTTng writes it.
func TestPacketsOfMetadata(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		var b []byte
		for part := range 2 {
			text := packed[part*len(packed)/2 : (part+1)*len(packed)/2]
			b = order.AppendUint32(b, metadataMagic)
			b = append(b, make([]byte, 20)...)
			b = order.AppendUint32(b, uint32(37+len(text))*8)
			b = order.AppendUint32(b, uint32(37+len(text)+3)*8)
			b = append(b, 0, 0, 0, 1, 8)
			b = append(append(b, text...), 0, 0, 0)
		}
		if got, err := read(t, string(b), packedStream()); err != nil || len(got) != 9 {
			t.Errorf("%v: %d events, %v", order, len(got), err)
		}
	}
}

// TestMutated: whatever is damaged or cut, reading ends, with what could be read.
func TestMutated(t *testing.T) {
	stream := packedStream()
	check := func(m, b []byte) {
		got, _ := read(t, string(m), b)
		if len(got) > len(b)*8 {
			t.Fatalf("%d events out of %d bytes", len(got), len(b))
		}
	}
	hostile.Check(t, stream, 64, func(b []byte) { check([]byte(packed), b) })
	hostile.Check(t, []byte(packed), 0, func(b []byte) { check(b, stream) })
	hostile.Check(t, []byte(twoMetadata), 0, func(b []byte) { check(b, stream) })
	hostile.Check(t, stream, 64, func(b []byte) { check([]byte(twoMetadata), b) })
	hostile.Check(t, []byte(twoTrace), 0, func(b []byte) { check(b, twoStream()) })
	hostile.Check(t, twoStream(), 0, func(b []byte) { check([]byte(twoTrace), b) })
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(twoMetadata))
	f.Add([]byte(twoTrace))
	for _, c := range twoFields {
		f.Add([]byte(twoOf(`{"name":"x","field-class":` + c.class + `}`)))
	}
	f.Add([]byte(packed))
	s, err := NewSchema([16]byte{1}, 5, [][2]string{{"a", "b\"c"}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Metadata())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseMetadata(b); err == nil {
			_, _ = NewTrace(m, nil)
		}
	})
}

// FuzzTwo reads any bytes as metadata of CTF 2 and a stream of it.
func FuzzTwo(f *testing.F) {
	f.Add([]byte(twoTrace), twoStream())
	for _, c := range twoFields {
		f.Add([]byte(twoOf(`{"name":"x","field-class":`+c.class+`}`)), append([]byte{5}, c.bytes...))
	}
	f.Fuzz(func(t *testing.T, metadata, b []byte) {
		if got, _ := read(t, string(metadata), b); len(got) > len(b)*8+1 {
			t.Errorf("%d events out of %d bytes", len(got), len(b))
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add(packedStream())
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, _ := read(t, packed, b); len(got) > len(b)*8 {
			t.Errorf("%d events out of %d bytes", len(got), len(b))
		}
	})
}

// TestSkipTo: from any time on, a reader that passes over packets gives the events and the gaps that one gives that reads all.
func TestSkipTo(t *testing.T) {
	f, err := traceevent.Parse([]byte("name: e\nID: 7\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\tfield:int n;\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: \"%d\", REC->n\n"))
	if err != nil {
		t.Fatal(err)
	}
	f.System = "s"
	schema, err := NewSchema([16]byte{}, 0, nil, []*traceevent.Format{f})
	if err != nil {
		t.Fatal(err)
	}
	const apart = 5e9 // ns, so that each third event begins a packet
	var b bytes.Buffer
	s := schema.NewStream(&b, 1)
	for i := range 30 {
		rec := make([]byte, 12)
		rec[0], rec[8] = 7, byte(i)
		at := uint64(1e9 + i/3*apart + i%3)
		if i%9 == 3 {
			if err := s.Lost(uint64(i), at); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Event(at, 7, rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(1e12); err != nil {
		t.Fatal(err)
	}
	m, err := ParseMetadata(schema.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	trace, err := NewTrace(m, []*traceevent.Format{f})
	if err != nil {
		t.Fatal(err)
	}
	read := func(from, skip uint64) (out []string, packets int) {
		r := trace.Open(bytes.NewReader(b.Bytes()), int64(b.Len()), 1000)
		r.SkipTo(skip)
		for e := range traceevent.All(r) {
			if e.Time >= from {
				out = append(out, fmt.Sprint(e.Time, e.Since, e.Lost, e.CPU, e.Rec))
			}
		}
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		return out, len(out)
	}
	for from := uint64(0); from < 52e9; from += 25e8 {
		for _, at := range []uint64{from, from + 1000, from + 1001, from + 1003} {
			want, _ := read(at, 0)
			got, _ := read(at, at)
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("from %d on: %s", at, d)
			}
		}
	}
	if _, n := read(0, 40e9); n > 12 {
		t.Errorf("%d events are read of those after the eighth packet of ten", n)
	}
}
