package ctf

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// twoMetadata says in CTF 2 what packed says in CTF 1.8, of the same bytes.
var twoMetadata = strings.ReplaceAll(`{"type": "preamble", "version": 2}
{"type": "field-class-alias", "name": "u8", "field-class": {"type": "fixed-length-unsigned-integer", "length": 8, "alignment": 8, "byte-order": "little-endian"}}
{"type": "trace-class", "environment": {"domain": "kernel", "tracer_major": 2}, "packet-header-field-class": {"type": "structure", "member-classes": [
	{"name": "the magic", "field-class": {"type": "fixed-length-unsigned-integer", "length": 32, "alignment": 8, "byte-order": "little-endian", "roles": ["packet-magic-number"]}},
	{"name": "class", "field-class": {"type": "fixed-length-unsigned-integer", "length": 32, "alignment": 8, "byte-order": "little-endian", "roles": ["data-stream-class-id"]}}]}}
{"type": "clock-class", "name": "monotonic", "frequency": 1000000000, "offset-from-origin": {"seconds": 0, "cycles": 1000}}
{"type": "data-stream-class", "id": 7, "default-clock-class-name": "monotonic",
 "packet-context-field-class": {"type": "structure", "member-classes": [
	{"name": "begin", "field-class": {"type": "fixed-length-unsigned-integer", "length": 64, "alignment": 8, "byte-order": "little-endian", "roles": ["default-clock-timestamp"]}},
	{"name": "end", "field-class": {"type": "fixed-length-unsigned-integer", "length": 64, "alignment": 8, "byte-order": "little-endian", "roles": ["packet-end-default-clock-timestamp"]}},
	{"name": "content", "field-class": {"type": "fixed-length-unsigned-integer", "length": 64, "alignment": 8, "byte-order": "little-endian", "roles": ["packet-content-length"]}},
	{"name": "total", "field-class": {"type": "fixed-length-unsigned-integer", "length": 64, "alignment": 8, "byte-order": "little-endian", "roles": ["packet-total-length"]}},
	{"name": "lost", "field-class": {"type": "fixed-length-unsigned-integer", "length": 32, "alignment": 8, "byte-order": "little-endian", "roles": ["discarded-event-record-counter-snapshot"]}},
	{"name": "cpu_id", "field-class": {"type": "fixed-length-unsigned-integer", "length": 32, "alignment": 8, "byte-order": "little-endian"}}]},
 "event-record-header-field-class": {"type": "structure", "minimum-alignment": 8, "member-classes": [
	{"name": "kind", "field-class": {"type": "fixed-length-unsigned-integer", "length": 5, "alignment": 1, "byte-order": "little-endian", "roles": ["event-record-class-id"]}},
	{"name": "v", "field-class": {"type": "variant", "selector-field-location": {"origin": "event-record-header", "path": ["kind"]}, "options": [
		{"name": "compact", "selector-field-ranges": [[0, 30]], "field-class": {"type": "structure", "member-classes": [
			{"name": "t", "field-class": {"type": "fixed-length-unsigned-integer", "length": 27, "alignment": 1, "byte-order": "little-endian", "roles": ["default-clock-timestamp"]}}]}},
		{"name": "extended", "selector-field-ranges": [[31, 31]], "field-class": {"type": "structure", "member-classes": [
			{"name": "kind", "field-class": {"type": "fixed-length-unsigned-integer", "length": 32, "alignment": 8, "byte-order": "little-endian", "roles": ["event-record-class-id"]}},
			{"name": "t", "field-class": {"type": "fixed-length-unsigned-integer", "length": 64, "alignment": 8, "byte-order": "little-endian", "roles": ["default-clock-timestamp"]}}]}}]}}]},
 "event-record-common-context-field-class": {"type": "structure", "member-classes": [
	{"name": "tid", "field-class": {"type": "fixed-length-signed-integer", "length": 32, "alignment": 8, "byte-order": "little-endian"}}]}}
{"type": "event-record-class", "name": "odd", "id": 3, "data-stream-class-id": 7, "payload-field-class": {"type": "structure", "member-classes": [
	{"name": "three", "field-class": {"type": "fixed-length-signed-integer", "length": 3, "alignment": 1, "byte-order": "little-endian"}},
	{"name": "thirteen", "field-class": {"type": "fixed-length-unsigned-integer", "length": 13, "alignment": 1, "byte-order": "little-endian"}},
	{"name": "port", "field-class": {"type": "fixed-length-unsigned-integer", "length": 32, "alignment": 8, "byte-order": "big-endian", "preferred-display-base": 16}},
	{"name": "in", "field-class": {"type": "structure", "member-classes": [{"name": "a", "field-class": "u8"},
		{"name": "b", "field-class": {"type": "fixed-length-unsigned-integer", "length": 16, "alignment": 8, "byte-order": "little-endian"}}]}},
	{"name": "e", "field-class": {"type": "fixed-length-unsigned-integer", "length": 8, "alignment": 8, "byte-order": "little-endian", "mappings": {"one": [[1, 1]], "two": [[2, 2]], "many": [[3, 9]]}}},
	{"name": "choice", "field-class": {"type": "variant", "selector-field-location": {"path": ["e"]}, "options": [
		{"name": "one", "selector-field-ranges": [[1, 1]], "field-class": {"type": "fixed-length-unsigned-integer", "length": 16, "alignment": 8, "byte-order": "little-endian"}},
		{"name": "two", "selector-field-ranges": [[2, 2]], "field-class": {"type": "null-terminated-string"}}]}},
	{"name": "__n_length", "field-class": "u8"},
	{"name": "n", "field-class": {"type": "dynamic-length-array", "length-field-location": {"origin": "event-record-payload", "path": ["__n_length"]},
		"element-field-class": {"type": "fixed-length-unsigned-integer", "length": 16, "alignment": 8, "byte-order": "little-endian"}}},
	{"name": "comm", "field-class": {"type": "static-length-string", "length": 4}},
	{"name": "s", "field-class": {"type": "null-terminated-string"}}]}}
{"type": "event-record-class", "name": "far", "id": 400, "data-stream-class-id": 7, "payload-field-class": {"type": "structure", "member-classes": [
	{"name": "x", "field-class": {"type": "fixed-length-unsigned-integer", "length": 64, "alignment": 8, "byte-order": "little-endian"}}]}}
`, "\n{\"type\"", "\n\x1e{\"type\"")

// TestTwo: the same bytes are the same events, whichever language describes them.
func TestTwo(t *testing.T) {
	want, err := read(t, packed, packedStream())
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(t, "\x1e"+twoMetadata, packedStream())
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	m, err := ParseMetadata([]byte(twoMetadata))
	if err != nil || m.Env["tracer_major"] != "2" || m.Clock.ToReal() != 1000 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestTwoOptional reads what is there only sometimes, blobs, and floating point.
func TestTwoOptional(t *testing.T) {
	const metadata = `{"type":"preamble","version":2}{"type":"trace-class"}{"type":"clock-class","name":"c","frequency":1000000000}
{"type":"data-stream-class","id":0,"event-record-header-field-class":{"type":"structure","member-classes":[
 {"name":"t","field-class":{"type":"fixed-length-unsigned-integer","length":8,"alignment":8,"byte-order":"little-endian","roles":["default-clock-timestamp"]}}]}}
{"type":"event-record-class","name":"e","payload-field-class":{"type":"structure","member-classes":[
 {"name":"has","field-class":{"type":"fixed-length-boolean","length":8,"alignment":8,"byte-order":"little-endian"}},
 {"name":"o","field-class":{"type":"optional","selector-field-location":{"path":["has"]},"field-class":{"type":"fixed-length-signed-integer","length":8,"alignment":8,"byte-order":"little-endian"}}},
 {"name":"b","field-class":{"type":"static-length-blob","length":2}}]}}`
	got, err := read(t, metadata, []byte{5, 1, 0xfe, 7, 8, 6, 0, 9, 10})
	want := []string{"5 [-1] 0 e: has=1 o=-2 b={0x7,0x8}", "6 [-1] 0 e: has=0 b={0x9,0xa}"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
}

// TestNoBits: events that take no room have no number.
func TestNoBits(t *testing.T) {
	got, err := read(t, `{"type":"preamble","version":2}{"type":"data-stream-class"}{"type":"event-record-class","name":"e"}`, []byte{1})
	if err == nil || len(got) > 0 {
		t.Errorf("%d events out of a byte, %v", len(got), err)
	}
}

func TestTwoErrors(t *testing.T) {
	for metadata, want := range map[string]string{
		`{"type":"what"}`:                 "a fragment of the type",
		`{"type":"preamble","version":2}`: "no class of data streams",
		`{"type":"preamble","version":3}`: "version 3 of the format",
		`{"type":"preamble","version":2,"extensions":{"my.tracer":{"piano":{"keys":88}}}}`:                                                                                           "the extension piano of my.tracer",
		`{"type":"trace-class","packet-header-field-class":{"type":"variable-length-string"}}`:                                                                                       "is not understood",
		`{"type":"data-stream-class","default-clock-class-id":"nosuch"}`:                                                                                                             "no clock",
		twoOf(`{"name":"s","field-class":{"type":"null-terminated-string","encoding":"latin-1"}}`):                                                                                   "text in",
		twoOf(`{"name":"f","field-class":{"type":"fixed-length-floating-point-number","length":96}}`):                                                                                "96 bits with a point",
		twoOf(`{"name":"o","field-class":{"type":"optional","selector-field-location":{"path":["n"]},"field-class":"u8"}}`):                                                          "does not stand before",
		twoOf(`{"name":"n","field-class":"u8"},{"name":"o","field-class":{"type":"optional","selector-field-location":{"path":["n"]},"field-class":"u8"}}`):                          "no ranges",
		twoOf(`{"name":"n","field-class":{"type":"fixed-length-unsigned-integer","length":8,"mappings":{"a":[[2,1]]}}}`):                                                             "a range from 2 to 1",
		twoOf(`{"name":"n","field-class":{"type":"dynamic-length-array","length-field-location":{"path":[null,null,"n"]},"element-field-class":"u8"}}`):                              "outside of all structures",
		`{"type":"trace-class","packet-header-field-class":"nosuch"}`:                                                                                                                "no field class",
		`{"type":"data-stream-class"}{"type":"event-record-class","name":"x","data-stream-class-id":3}`:                                                                              "is not there",
		`{"type":"trace-class","packet-header-field-class":` + strings.Repeat(`{"type":"static-length-array","length":1,"element-field-class":`, 50) + `1` + strings.Repeat("}", 51): "types within types",
		`{"type":`: "unexpected EOF",
	} {
		if _, err := read(t, metadata, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v", metadata, err)
		}
	}
}
