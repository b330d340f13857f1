package btftypes

import (
	"os"
	"testing"

	"github.com/fathom-trace/fathom/ctype"
)

func vmlinux(t testing.TB) []byte {
	t.Helper()
	raw, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip(err)
	}
	return raw
}

// BenchmarkByName is what the first cast to a struct costs.
func BenchmarkByName(b *testing.B) {
	raw := vmlinux(b)
	b.ReportAllocs()
	for b.Loop() {
		k, err := Parse(raw, nil)
		if err != nil {
			b.Fatal(err)
		}
		s, err := New(k, nil).ByName(ctype.KindStruct, "task_struct")
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := s.(*ctype.Struct).Member("real_parent"); !ok {
			b.Fatal("no real_parent")
		}
	}
}

func BenchmarkParse(b *testing.B) {
	raw := vmlinux(b)
	for b.Loop() {
		if _, err := Parse(raw, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan looks for one name, which nothing has.
func BenchmarkScan(b *testing.B) {
	k, err := Parse(vmlinux(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, ok := New(k, nil).FuncID("no_such_name"); ok {
			b.Fatal("found")
		}
	}
}

// BenchmarkTable makes the table of all names.
func BenchmarkTable(b *testing.B) {
	k, err := Parse(vmlinux(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	p := New(k, nil).parts[0]
	for b.Loop() {
		p.table()
	}
}

func BenchmarkEnumValue(b *testing.B) {
	k, err := Parse(vmlinux(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	l := New(k, nil)
	for b.Loop() {
		if _, _, ok := l.EnumValue("no_such_name"); ok {
			b.Fatal("found")
		}
	}
}

func BenchmarkNames(b *testing.B) {
	k, err := Parse(vmlinux(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(k.Names(ctype.KindTypedef, "btf_trace_")) == 0 {
			b.Fatal("none")
		}
	}
}
