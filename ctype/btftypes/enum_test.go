package btftypes

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestRawEnum compares looking into raw BTF with reading all enums, on this machine's kernel.
func TestRawEnum(t *testing.T) {
	raw, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip(err)
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip(err)
	}
	slow, fast := New(spec, nil), New(spec, nil)
	fast.SetRaw(func() ([]byte, error) { return raw, nil })
	slow.EnumValue("")
	n := 0
	for name, want := range slow.enums {
		if n++; n%50 != 0 {
			continue
		}
		_, v, ok := fast.EnumValue(name)
		if !ok || v != want.v {
			t.Errorf("%s: %d %v, want %d", name, v, ok, want.v)
		}
	}
	if _, _, ok := fast.EnumValue("no_such_enumerator"); ok || fast.enums != nil {
		t.Error("found what is not there, or read all enums")
	}
	if n < 1000 {
		t.Errorf("only %d enumerators", n)
	}
}

func FuzzFindEnum(f *testing.F) {
	f.Add([]byte{0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 20, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 6, 4, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 'a', 0, 'b', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		findEnum(b, "a")
	})
}
