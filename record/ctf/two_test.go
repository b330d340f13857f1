package ctf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// twoOf is metadata of CTF 2 with one event of these members. Its header is a time stamp of a byte.
func twoOf(members string) string {
	return `{"type":"preamble","version":2}
{"type":"field-class-alias","name":"u8","field-class":{"type":"fixed-length-unsigned-integer","length":8,"alignment":8,"byte-order":"little-endian"}}
{"type":"field-class-alias","name":"byte","field-class":"u8"}
{"type":"field-class-alias","name":"stamp","field-class":{"type":"fixed-length-unsigned-integer","length":8,"byte-order":"little-endian","roles":["default-clock-timestamp"]}}
{"type":"trace-class"}{"type":"clock-class","id":"c","frequency":1000000000}
{"type":"data-stream-class","default-clock-class-id":"c","event-record-header-field-class":{"type":"structure","member-classes":[{"name":"t","field-class":"stamp"}]}}
{"type":"event-record-class","name":"e","payload-field-class":{"type":"structure","member-classes":[` + members + `]}}`
}

// utf gives text in UTF-16 or UTF-32.
func utf(order binary.AppendByteOrder, unit int, s string) (out []byte) {
	if unit == 4 {
		for _, c := range s {
			out = order.AppendUint32(out, uint32(c))
		}
		return out
	}
	for _, c := range utf16.Encode([]rune(s)) {
		out = order.AppendUint16(out, c)
	}
	return out
}

// twoField is a field of CTF 2: its class, how it is in a stream, and what is read.
type twoField struct {
	class string // of a member named x, or members
	bytes []byte
	want  string
}

// twoFields has every field class of the specification, with its own examples where it says what they mean.
var twoFields = map[string]twoField{
	"unsigned LEB128": {`{"type":"variable-length-unsigned-integer"}`, []byte{0xb4, 0xc7, 0x72}, "x=1876916"}, // example 98
	"signed LEB128":   {`{"type":"variable-length-signed-integer"}`, []byte{0xb4, 0xc7, 0x72}, "x=-220236"},   // example 99
	"largest LEB128":  {`{"type":"variable-length-unsigned-integer"}`, append(bytes.Repeat([]byte{0xff}, 9), 1), "x=18446744073709551615"},
	"least LEB128":    {`{"type":"variable-length-signed-integer"}`, append(bytes.Repeat([]byte{0x80}, 9), 0x7f), "x=-9223372036854775808"},
	"named LEB128":    {`{"type":"variable-length-unsigned-integer","mappings":{"lime":[[3,3]],"kiwi":[[8,8]]}}`, []byte{8}, "x=8 (kiwi)"},
	"mappings": {`{"type":"fixed-length-signed-integer","length":32,"byte-order":"little-endian","mappings":{"banana":[[-27399,-1882],[8,199]],"orange":[[67,67]]}}`,
		[]byte{0x18, 0xfc, 0xff, 0xff}, "x=-1000"},
	"mapped": {`{"type":"fixed-length-signed-integer","length":32,"byte-order":"big-endian","mappings":{"banana":[[-27399,-1882],[8,199]]}}`,
		[]byte{0xff, 0xff, 0xf8, 0xa6}, "x=-1882 (banana)"},
	"over 2^63": {`{"type":"fixed-length-unsigned-integer","length":64,"byte-order":"big-endian","mappings":{"much":[[9,18446744073709551615]]}}`,
		[]byte{0xff, 0, 0, 0, 0, 0, 0, 1}, "x=18374686479671623681 (much)"},
	"bit array":         {`{"type":"fixed-length-bit-array","length":16,"byte-order":"big-endian"}`, []byte{0x12, 0x34}, "x=4660"},
	"bit order":         {`{"type":"fixed-length-unsigned-integer","length":16,"byte-order":"big-endian","bit-order":"first-to-last"}`, []byte{0x80, 0x02}, "x=16385"},
	"bit order, little": {`{"type":"fixed-length-signed-integer","length":16,"byte-order":"little-endian","bit-order":"last-to-first"}`, []byte{0x01, 0x80}, "x=-32767"},
	"bit map": {`{"type":"fixed-length-bit-map","length":16,"byte-order":"big-endian","flags":{"RED":[[0,2],[4,4],[10,10]],"ORANGE":[[6,6]],"GREEN":[[7,7],[9,9],[11,11]],"YELLOW":[[9,9],[13,14]],"BLUE":[[15,15]]}}`,
		[]byte{0x22, 0x10}, "x=8720 (RED|GREEN|YELLOW)"},
	"boolean":        {`{"type":"fixed-length-boolean","length":8,"byte-order":"little-endian"}`, []byte{0x10}, "x=1"},
	"binary16":       {`{"type":"fixed-length-floating-point-number","length":16,"byte-order":"little-endian"}`, []byte{0x00, 0xc1}, "x=-2.5"},
	"binary16, tiny": {`{"type":"fixed-length-floating-point-number","length":16,"byte-order":"big-endian"}`, []byte{0x00, 0x01}, "x=5.9604645e-08"},
	"binary32":       {`{"type":"fixed-length-floating-point-number","length":32,"byte-order":"big-endian"}`, binary.BigEndian.AppendUint32(nil, math.Float32bits(0.1)), "x=0.1"},
	"binary64":       {`{"type":"fixed-length-floating-point-number","length":64,"byte-order":"little-endian"}`, binary.LittleEndian.AppendUint64(nil, math.Float64bits(-1e300)), "x=-1e+300"},
	"binary128": {`{"type":"fixed-length-floating-point-number","length":128,"byte-order":"big-endian"}`,
		[]byte{0x40, 0x00, 0x92, 0x1f, 0xb5, 0x44, 0x42, 0xd1, 0x84, 0x69, 0x89, 0x8c, 0xc5, 0x17, 0x01, 0xb8}, "x=3.141592653589793"},
	"binary128, little": {`{"type":"fixed-length-floating-point-number","length":128,"byte-order":"little-endian"}`,
		[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xfe, 0xbf}, "x=-0.75"},
	"binary128, infinite": {`{"type":"fixed-length-floating-point-number","length":128,"byte-order":"big-endian"}`, append([]byte{0xff, 0xff}, make([]byte, 14)...), "x=-Inf"},
	"text":                {`{"type":"null-terminated-string"}`, []byte("naïve\x00"), "x=naïve"},
	"text, UTF-16LE":      {`{"type":"null-terminated-string","encoding":"utf-16le"}`, utf(binary.LittleEndian, 2, "naïve 🍍\x00"), "x=naïve 🍍"},
	"text, UTF-32BE":      {`{"type":"static-length-string","encoding":"utf-32be","length":20}`, utf(binary.BigEndian, 4, "é🍍\x00zz"), "x=é🍍"},
	"text, static":        {`{"type":"static-length-string","length":6}`, []byte("abc\x00zz"), "x=abc"},
	"text, half a pair":   {`{"type":"static-length-string","encoding":"utf-16be","length":4}`, []byte{0xd8, 0x3c, 0, 'a'}, "x=\ufffda"},
	"bytes":               {`{"type":"static-length-blob","length":2,"media-type":"image/tiff"}`, []byte{7, 8}, "x={0x7,0x8}"},
	"no bytes":            {`{"type":"static-length-blob","length":0}},{"name":"y","field-class":"byte"`, []byte{9}, "y=9"},
	"array":               {`{"type":"static-length-array","length":2,"element-field-class":{"type":"fixed-length-unsigned-integer","length":12,"byte-order":"little-endian"}}`, []byte{0x23, 0x61, 0x45}, "x={0x123,0x456}"},
	"array of LEB128":     {`{"type":"static-length-array","length":2,"element-field-class":{"type":"variable-length-unsigned-integer"}}`, []byte{0x80, 1, 2}, "x={0x80,0x2}"},
	"array of text":       {`{"type":"static-length-array","length":2,"element-field-class":{"type":"null-terminated-string"}}`, []byte("ab\x00\x00"), "x={ab,}"},
	"array of floats":     {`{"type":"static-length-array","length":2,"element-field-class":{"type":"fixed-length-floating-point-number","length":16,"byte-order":"big-endian"}}`, []byte{0x3c, 0, 0x38, 0}, "x={1,0.5}"},
	"array of arrays":     {`{"type":"static-length-array","length":2,"element-field-class":{"type":"static-length-array","length":2,"element-field-class":"u8"}}`, []byte{1, 2, 3, 4}, "x={{0x1,0x2},{0x3,0x4}}"},
	"aligned array":       {`"u8"},{"name":"y","field-class":{"type":"static-length-array","length":1,"minimum-alignment":32,"element-field-class":"byte"}`, []byte{0, 0, 0, 1, 0, 0, 0, 2}, "x=1 y={0x2}"}, // as is the structure around it
	"structure":           {`{"type":"structure","minimum-alignment":32,"member-classes":[{"name":"a b","field-class":"u8"}]}`, []byte{0, 0, 0, 5}, "x_a_b=5"},
	// Example 88: a length in the same element of an array, and example 41's null.
	"lengths in elements": {`{"type":"static-length-array","length":2,"element-field-class":{"type":"structure","member-classes":[{"name":"laser","field-class":{"type":"variable-length-unsigned-integer"}},
		{"name":"in","field-class":{"type":"structure","member-classes":[{"name":"joystick","field-class":{"type":"dynamic-length-array","length-field-location":{"path":[null,"laser"]},"element-field-class":{"type":"null-terminated-string"}}}]}}]}}`,
		[]byte("\x02a\x00b\x00\x01c\x00"), "x={{laser=2 in_joystick={a,b}},{laser=1 in_joystick={c}}}"},
	// Example 91: a length in whichever option of a variant there is.
	"lengths in options": {`"u8"},{"name":"glass","field-class":{"type":"variant","selector-field-location":{"origin":"event-record-payload","path":["x"]},"options":[
		{"selector-field-ranges":[[0,0]],"field-class":{"type":"structure","member-classes":[{"name":"eagle","field-class":"u8"}]}},
		{"selector-field-ranges":[[5,5]],"field-class":{"type":"structure","member-classes":[{"name":"eagle","field-class":{"type":"variable-length-unsigned-integer"}},
			{"name":"lock","field-class":{"type":"dynamic-length-blob","length-field-location":{"origin":"event-record-payload","path":["glass","eagle"]}}}]}}]}},
		{"name":"margin","field-class":{"type":"dynamic-length-string","encoding":"utf-8","length-field-location":{"origin":"event-record-payload","path":["glass","eagle"]}}`,
		[]byte("\x05\x02\x08\x09hi"), "x=5 glass_option1_eagle=2 glass_option1_lock={0x8,0x9} margin=hi"},
	"text of a length": {`"u8"},{"name":"y","field-class":{"type":"dynamic-length-string","encoding":"utf-16be","length-field-location":{"path":["x"]}}},{"name":"z","field-class":"u8"`,
		append(append([]byte{8}, utf(binary.BigEndian, 2, "ab\x00z")...), 3), "x=8 y=ab z=3"},
	// Example 63: an optional variant; both depend on one field.
	"optional variant": {`{"type":"variable-length-signed-integer"}},{"name":"o","field-class":{"type":"optional","selector-field-location":{"path":["x"]},"selector-field-ranges":[[-9,-1]],
		"field-class":{"type":"variant","selector-field-location":{"path":["x"]},"options":[{"name":"juice","selector-field-ranges":[[-4,-1]],"field-class":{"type":"null-terminated-string"}},
			{"selector-field-ranges":[[-9,-5]],"field-class":"byte"}]}}`, []byte("\x7ehi\x00"), "x=-2 o_juice=hi"},
	"not there": {`"u8"},{"name":"o","field-class":{"type":"optional","selector-field-location":{"path":["x"]},"selector-field-ranges":[[1,1]],"field-class":"byte"}},{"name":"z","field-class":"u8"`,
		[]byte{2, 7}, "x=2 z=7"},
}

// TestTwoFields reads every field class of CTF 2.
func TestTwoFields(t *testing.T) {
	for name, f := range twoFields {
		stream := append([]byte{5}, f.bytes...)
		metadata := twoOf(`{"name":"x","field-class":` + f.class + `}`)
		got, err := read(t, metadata, stream)
		if want := []string{"5 [-1] 0 e: " + f.want}; cmp.Diff(want, got) != "" || err != nil {
			t.Errorf("%s: %q, want %q; %v", name, got, want, err)
		}
		for n := 1; n < len(stream); n++ { // cut off
			if got, err := read(t, metadata, stream[:n]); err == nil && len(got) > 0 {
				t.Errorf("%s: of %d bytes of %d %q is read", name, n, len(stream), got)
			}
		}
	}
	for _, long := range [][]byte{append(bytes.Repeat([]byte{0xff}, 9), 2), append(bytes.Repeat([]byte{0x80}, 10), 0)} {
		if got, err := read(t, twoOf(`{"name":"x","field-class":{"type":"variable-length-unsigned-integer"}}`), append([]byte{5}, long...)); err == nil {
			t.Errorf("a number of more than 64 bits: %q", got)
		}
	}
}

// twoTrace is metadata as a tracer may write it: everything under an alias, all numbers of variable length, names that mean something
// elsewhere, two clocks, and a UUID.
const twoTrace = `{"type":"preamble","version":2,"uuid":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],"attributes":{"my.tracer":{"x":[1]}}}
{"type":"field-class-alias","name":"v","field-class":{"type":"variable-length-unsigned-integer"}}
{"type":"field-class-alias","name":"time","field-class":{"type":"variable-length-unsigned-integer","roles":["default-clock-timestamp"]}}
{"type":"field-class-alias","name":"sizes","field-class":{"type":"variable-length-unsigned-integer","roles":["packet-content-length","packet-total-length"]}}
{"type":"trace-class","name":"t","environment":{"big":1234567890123456789,"text":"a\"b"},"packet-header-field-class":{"type":"structure","member-classes":[
 {"name":"m","field-class":{"type":"fixed-length-unsigned-integer","length":32,"byte-order":"big-endian","roles":["packet-magic-number"]}},
 {"name":"u","field-class":{"type":"static-length-blob","length":16,"roles":["metadata-stream-uuid"]}},
 {"name":"s","field-class":{"type":"variable-length-unsigned-integer","roles":["data-stream-class-id"]}}]}}
{"type":"clock-class","id":"slow","name":"n","frequency":1000,"origin":"unix-epoch","offset-from-origin":{"seconds":5,"cycles":1}}
{"type":"clock-class","id":"fast","name":"n","frequency":1000000000,"origin":"unix-epoch","offset-from-origin":{"seconds":7}}
{"type":"field-class-alias","name":"packet","field-class":{"type":"structure","member-classes":[{"name":"sizes","field-class":"sizes"},{"name":"id","field-class":"time"},
 {"name":"lost","field-class":{"type":"variable-length-unsigned-integer","roles":["discarded-event-record-counter-snapshot"]}},{"name":"cpu_id","field-class":"v"}]}}
{"type":"field-class-alias","name":"header","field-class":{"type":"structure","member-classes":[{"name":"timestamp","field-class":{"type":"variable-length-unsigned-integer","roles":["event-record-class-id"]}},
 {"name":"id","field-class":"time"}]}}
{"type":"data-stream-class","id":1,"default-clock-class-id":"slow","packet-context-field-class":"packet","event-record-header-field-class":"header",
 "event-record-common-context-field-class":{"type":"structure","member-classes":[{"name":"tid","field-class":{"type":"fixed-length-signed-integer","length":32,"byte-order":"big-endian"}},{"name":"n","field-class":"v"}]}}
{"type":"data-stream-class","id":2,"default-clock-class-id":"fast","packet-context-field-class":"packet","event-record-header-field-class":"header"}
{"type":"event-record-class","data-stream-class-id":1,"id":300,"uid":"far","specific-context-field-class":{"type":"structure","member-classes":[{"name":"size","field-class":"v"}]},
 "payload-field-class":{"type":"structure","member-classes":[
  {"name":"sizes","field-class":"v"},{"name":"timestamp","field-class":"sizes"},
  {"name":"a","field-class":{"type":"dynamic-length-array","length-field-location":{"path":["sizes"]},"element-field-class":"v"}},
  {"name":"b","field-class":{"type":"dynamic-length-string","length-field-location":{"origin":"event-record-specific-context","path":["size"]}}},
  {"name":"c","field-class":{"type":"dynamic-length-blob","length-field-location":{"origin":"event-record-common-context","path":["n"]}}}]}}
{"type":"event-record-class","data-stream-class-id":2}
`

// leb writes a number of LEB128.
func leb(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// twoPacket is a packet of that trace.
func twoPacket(class, time, lost uint64, events []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, packetMagic)
	b = append(b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
	b = leb(b, class)
	rest := append(leb(leb(leb(nil, time), lost), 3), events...)
	return append(append(b, 0x80|byte(8*(len(b)+3+len(rest))&0x7f), 0x80|byte(8*(len(b)+3+len(rest))>>7), 0), rest...)
}

func twoStream() []byte {
	far := func(time uint64) []byte {
		b := leb(leb(nil, 300), time)
		b = append(b, 0, 0, 0, 42, 2) // tid, n
		b = append(b, 3)              // size
		return append(b, 2, 9, 0x80, 1, 5, 'a', 'b', 'c', 0xfe, 0xff)
	}
	out := twoPacket(1, 1000, 0, append(far(10), far(1127)...)) // of the first, seven bits are there
	return append(out, twoPacket(2, 1e9, 4, []byte{0, 9})...)
}

// TestTwoTrace: what fields are for is told by their roles alone, and what others depend on by its place.
func TestTwoTrace(t *testing.T) {
	want := []string{
		"1034000000 [3] 42 far: n=2 size=3 sizes=2 timestamp=9 a={0x80,0x5} b=abc c={0xfe,0xff}",
		"1127000000 [3] 42 far: n=2 size=3 sizes=2 timestamp=9 a={0x80,0x5} b=abc c={0xfe,0xff}",
		"lost 4",
		"2999000009 [3] 0 event0: ", // the other clock began 1.999 s later
	}
	// Metadata in packets (CTF2-PMETA), and as a text sequence with record separators.
	packets := func(text string) string {
		b := binary.LittleEndian.AppendUint32(nil, metadataMagic)
		b = append(b, make([]byte, 20)...)
		b = binary.LittleEndian.AppendUint32(b, uint32(37+len(text))*8)
		b = binary.LittleEndian.AppendUint32(b, uint32(37+len(text)+3)*8)
		return string(append(append(append(b, 0, 0, 0, 2, 0), text...), 0, 0, 0))
	}
	half := len(twoTrace) / 2
	for form, metadata := range map[string]string{"plain": twoTrace, "sequence": "\x1e" + strings.ReplaceAll(twoTrace, "\n{", "\n\x1e{"), "packets": packets("\x1e"+twoTrace[:half]) + packets(twoTrace[half:])} {
		got, err := read(t, metadata, twoStream())
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Error(form, err, d)
		}
	}
	m, err := ParseMetadata([]byte(twoTrace))
	if err != nil || m.Env["big"] != "1234567890123456789" || m.Env["text"] != `a"b` || m.Clock.ToReal() != 5_001_000_000 || !m.HasUUID {
		t.Errorf("%+v, %v", m, err)
	}
	other, err := ParseMetadata([]byte(strings.ReplaceAll(twoTrace, `"unix-epoch"`, `{"name":"boot","uid":"1"}`)))
	if err != nil || other.Clock.ToReal() != 0 {
		t.Errorf("a clock that is not counted from 1970: %d, %v", other.Clock.ToReal(), err)
	}
	stream := twoStream()
	stream[7]++ // of the UUID
	if got, err := read(t, twoTrace, stream); err == nil || len(got) > 0 {
		t.Errorf("a packet of another trace: %q", got)
	}
}

// TestNested: types that are nested by their names, or grow by them, are refused in both languages, and soon.
func TestNested(t *testing.T) {
	for _, tt := range []struct {
		n     int
		twice bool
		good  bool
	}{{20, false, true}, {31, true, false}, {40, false, false}} {
		two, one := `{"type":"preamble","version":2}{"type":"field-class-alias","name":"t0","field-class":{"type":"structure"}}`, "struct t0 {};\n"
		members := func(i int) (two, one string) {
			two, one = fmt.Sprintf(`{"name":"a","field-class":"t%d"}`, i), fmt.Sprintf("struct t%d a;", i)
			if tt.twice {
				two, one = two+","+strings.Replace(two, "a", "b", 1), one+fmt.Sprintf("struct t%d b;", i)
			}
			return two, one
		}
		for i := range tt.n {
			a, b := members(i)
			two += fmt.Sprintf(`{"type":"field-class-alias","name":"t%d","field-class":{"type":"structure","member-classes":[%s]}}`, i+1, a)
			one += fmt.Sprintf("struct t%d { %s };\n", i+1, b)
		}
		two += fmt.Sprintf(`{"type":"data-stream-class","packet-context-field-class":"t%d"}`, tt.n)
		one += fmt.Sprintf("stream { packet.context := struct t%d; };\n", tt.n)
		for _, text := range []string{one, two} {
			if _, err := read(t, text, nil); (err == nil) != tt.good {
				t.Errorf("%d levels, twice: %v: %v: %.60s", tt.n, tt.twice, err, text)
			}
		}
	}
}

// TestLists: arrays of what is no integer are text, in CTF 1.8, too.
func TestLists(t *testing.T) {
	const metadata = `trace { major = 1; minor = 8; byte_order = le; };
typealias integer { size = 8; align = 8; } := uint8_t;
event { name = "poll"; id = 0; stream_id = 0; fields := struct {
	uint8_t __fds_length;
	struct { integer { size = 8; align = 8; signed = true; } _fd; uint8_t _events; } _fds[__fds_length];
	string _names[2]; uint8_t _last;
}; };`
	got, err := read(t, metadata, []byte("\x02\xff\x01\x05\x02a\x00bc\x00\x07"))
	if want := []string{"0 [-1] 0 poll: fds={{fd=-1 events=1},{fd=5 events=2}} names={a,bc} last=7"}; cmp.Diff(want, got) != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestLongList: an array is read to its end, and its text ends where a record can tell of no more.
func TestLongList(t *testing.T) {
	metadata := twoOf(`{"name":"a","field-class":{"type":"static-length-array","length":50000,"element-field-class":{"type":"structure","member-classes":[{"name":"n","field-class":"u8"}]}}},{"name":"z","field-class":"u8"}`)
	got, err := read(t, metadata, append(make([]byte, 50001), 9))
	if err != nil || len(got) != 1 || !strings.HasSuffix(got[0], "} z=9") || len(got[0]) < maxList || len(got[0]) > maxList+100 {
		t.Errorf("%d events, %d bytes of text: %v", len(got), len(strings.Join(got, "")), err)
	}
}
