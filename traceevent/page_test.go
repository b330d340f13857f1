package traceevent

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// page builds a ring buffer page out of words.
func page(time, commit uint64, words ...uint32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, time)
	b = binary.LittleEndian.AppendUint64(b, commit)
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// head is a record's first word.
func head(kind, delta uint32) uint32 { return delta<<5 | kind }

type record struct {
	Time uint64
	Data string
}

func records(t *testing.T, b []byte) (out []record, p Page, err error) {
	t.Helper()
	if p, err = ParsePage(b, PageHeader64); err != nil {
		return nil, p, err
	}
	err = p.Records(func(time uint64, rec []byte) bool {
		out = append(out, record{time, string(rec)})
		return true
	})
	return out, p, err
}

const abcd = 0x64636261

func TestPage(t *testing.T) {
	tests := []struct {
		name string
		page []byte
		want []record
		err  string
	}{
		{"short records", page(1000, 16, head(1, 5), abcd, head(1, 7), abcd), []record{{1005, "abcd"}, {1012, "abcd"}}, ""},
		{"long record", page(1000, 12, head(0, 5), 8, abcd), []record{{1005, "abcd"}}, ""},
		{"time extended", page(1000, 16, head(typeExtend, 1), 2, head(1, 1), abcd), []record{{1002 + 2<<27, "abcd"}}, ""},
		{"absolute time keeps the upper bits", page(5<<59|7, 16, head(typeStamp, 3), 1, head(1, 1), abcd), []record{{5<<59 | 1<<27 + 4, "abcd"}}, ""},
		{"discarded record", page(1000, 20, head(typePadding, 2), 8, 0, head(1, 1), abcd), []record{{1003, "abcd"}}, ""},
		{"padding to the end", page(1000, 16, head(1, 1), abcd, head(typePadding, 0), 4000), []record{{1001, "abcd"}}, ""},
		{"nothing", page(1000, 0), nil, ""},
		{"size beyond the page", page(1000, 64, head(1, 5), abcd), nil, "ring buffer page at 0x8: more data than the page has"},
		{"record beyond the data", page(1000, 8, head(7, 5), abcd), nil, "ring buffer page at 0x10: a record reaches beyond the data"},
		{"length without itself", page(1000, 8, head(0, 5), 3), nil, "ring buffer page at 0x10: a record shorter than its length"},
		{"cut", []byte("abc"), nil, "ring buffer page at 0x3: shorter than its header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := records(t, tt.page)
			msg := ""
			if err != nil {
				msg = err.Error()
			}
			if d := cmp.Diff(tt.want, got); d != "" || msg != tt.err {
				t.Errorf("error %q, want %q\n%s", msg, tt.err, d)
			}
		})
	}
}

func TestPageLost(t *testing.T) {
	b := page(1, 8|commitMissed|commitStored, head(1, 5), abcd, 42, 0)
	_, p, err := records(t, b)
	if err != nil || !p.Missed || p.Lost != 42 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, p, err := records(t, page(1, 8|commitMissed, head(1, 5), abcd)); err != nil || !p.Missed || p.Lost != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

const headerPage = `	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:8;	signed:1;
	field: int overwrite;	offset:8;	size:1;	signed:1;
	field: char data;	offset:16;	size:4080;	signed:0;
`

func TestPageHeader(t *testing.T) {
	if h, err := ParsePageHeader([]byte(headerPage)); err != nil || h != PageHeader64 {
		t.Errorf("%+v, %v", h, err)
	}
	for _, bad := range []string{"", "nonsense", "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"} {
		if _, err := ParsePageHeader([]byte(bad)); err == nil {
			t.Errorf("%q is a header", bad)
		}
	}
}

func TestFieldValues(t *testing.T) {
	rec := []byte{0xfe, 0xff, 'c', 'a', 't', 0, 'x', 'y', 0xff, 0xff, 0xff, 0xff}
	f := &Field{Offset: 0, Size: 2}
	if f.Uint(rec) != 0xfffe || f.Int(rec) != -2 {
		t.Error(f.Uint(rec), f.Int(rec))
	}
	if s := (&Field{Offset: 2, Size: 6}).Text(rec); s != "cat" {
		t.Error(s)
	}
	for _, f := range []*Field{nil, {Offset: 8, Size: 8}, {Offset: 0, Size: 3}} {
		if n := f.Uint(rec); n != 0 {
			t.Errorf("%+v: %d", f, n)
		}
	}
}

func FuzzPage(f *testing.F) {
	f.Add(page(1000, 16, head(1, 5), abcd, head(0, 7), 4))
	f.Add(page(1000, 20, head(typePadding, 2), 8, 0, head(typeStamp, 1), abcd))
	f.Add(page(1, 8|commitMissed|commitStored, head(typeExtend, 5), abcd, 42, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePage(b, PageHeader64)
		if err != nil {
			return
		}
		n := 0
		_ = p.Records(func(_ uint64, rec []byte) bool { n += len(rec) + 4; return true })
		if n > len(b) {
			t.Errorf("%d bytes of records in a page of %d", n, len(b))
		}
	})
}

func FuzzPageHeader(f *testing.F) {
	f.Add([]byte(headerPage))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParsePageHeader(b)
		if err != nil {
			return
		}
		_, _ = ParsePage(make([]byte, 64), h)
	})
}
