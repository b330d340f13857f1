package ctf

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/traceevent"
)

// TestLayouts: what is read of our own traces has the layout of the kernel's records, whatever a record tells its lengths by: arrays
// that are the rest of it, as in stacks, and places counted from the record's start or from behind themselves, as in user_events.
func TestLayouts(t *testing.T) {
	const common = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n" +
		"\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
	head := func(id uint16) []byte { return []byte{byte(id), byte(id >> 8), 0, 0, 77, 0, 0, 0} }
	le := binary.LittleEndian
	stack := le.AppendUint32(head(4), 3)
	stack = append(stack, 0, 0, 0, 0)
	for _, a := range []uint64{0xffffffff81000010, 0xffffffff81000020, 0xffffffffc0000030} {
		stack = le.AppendUint64(stack, a)
	}
	rel := le.AppendUint32(le.AppendUint32(head(5), 6<<16|4), 42) // the text begins 4 bytes behind its place
	rel = append(rel, "hello\x00"...)
	loc := append(le.AppendUint32(le.AppendUint32(head(6), 4<<16|16), 43), "abc\x00"...)
	var formats []*traceevent.Format
	for _, text := range []string{
		"name: kernel_stack\nID: 4\nformat:\n" + common + "\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;\n\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n\nprint fmt: \"%p\", REC->caller[0]\n",
		"name: told\nID: 5\nformat:\n" + common + "\tfield:__rel_loc char[] text;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:int n;\toffset:12;\tsize:4;\tsigned:1;\n\nprint fmt: \"%d\", REC->n\n",
		"name: placed\nID: 6\nformat:\n" + common + "\tfield:__data_loc char[] text;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:int n;\toffset:12;\tsize:4;\tsigned:1;\n\nprint fmt: \"%d\", REC->n\n",
	} {
		f, err := traceevent.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		f.System = "ftrace"
		formats = append(formats, f)
	}
	schema, err := NewSchema([16]byte{9}, 0, nil, formats)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := schema.NewStream(&out, 0)
	records := [][]byte{stack, rel, loc}
	for i, rec := range records {
		if err := w.Event(uint64(i+1), formats[i].ID, rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(10); err != nil {
		t.Fatal(err)
	}
	m, err := ParseMetadata(schema.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	tr, err := NewTrace(m, formats)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for e := range traceevent.All(tr.Open(bytes.NewReader(out.Bytes()), int64(out.Len()), 0)) {
		got = append(got, string(e.Format.AppendFields(nil, e.Rec)))
	}
	for i, rec := range records {
		want = append(want, string(formats[i].AppendFields(nil, rec)))
	}
	if d := cmp.Diff(want, got); d != "" || want[0] != "size=3 caller={0xffffffff81000010,0xffffffff81000020,0xffffffffc0000030}" || want[1] != "text=hello n=42" {
		t.Errorf("%s\nwritten %q", d, want)
	}
}
