package nlattr_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

func TestParse(t *testing.T) {
	var b []byte
	b = nlattr.AppendU32(b, 1, 7)
	b = nlattr.Append(b, 2|0x8000, nlattr.Append(nil, 3, []byte("eth0\x00x")))
	b = nlattr.Append(b, 4, []byte{0, 9})
	a, err := nlattr.Parse(b)
	if err != nil || len(a) != 3 {
		t.Fatal(a, err)
	}
	if a.U32(1) != 7 || a.Nested(2).String(3) != "eth0" || a.BE16(4) != 9 || a.U16(4) != 0x900 || a.U64(1) != 0 || a.Has(9) || !a.Has(4) {
		t.Errorf("%v", a)
	}
	if got, err := nlattr.Parse(b[:len(b)-3]); err == nil {
		t.Error("a cut chain is no error:", got)
	} else if d := cmp.Diff(2, len(got)); d != "" {
		t.Error("what was whole:", d)
	}
	if _, err := nlattr.ParseAt(b, 1000); err == nil {
		t.Error("no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(nlattr.AppendU32(nil, 1, 7))
	f.Add([]byte{3, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, _ := nlattr.Parse(b)
		n := 0
		for _, x := range a {
			n += 4 + len(x.Data)
			a.Nested(x.Type)
		}
		if n > len(b) {
			t.Errorf("%d bytes out of %d", n, len(b))
		}
	})
}
