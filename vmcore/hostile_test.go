package vmcore

import (
	"testing"

	"github.com/fathom-trace/fathom/internal/hostile"
)

// TestHostile gives every format cut short and changed.
func TestHostile(t *testing.T) {
	some := func(p int) bool { return p%3 != 1 }
	read := func(b []byte) {
		c, err := Open(file(b))
		if err != nil {
			return
		}
		for p := range 16 {
			pageIs(c, p)
		}
		for _, r := range c.Ranges()[:min(4, len(c.Ranges()))] {
			var p [64]byte
			_ = c.ReadPhys(p[:], r.Start)
			_ = c.ReadPhys(p[:], r.End-1)
		}
	}
	elf := buildELF(testInfo, seg{phys: 0, virt: 0xff11000000000000, filesz: 8 * testPage, memsz: 10 * testPage}, seg{phys: 0x2000, filesz: testPage, memsz: testPage})
	t.Run("elf", func(t *testing.T) { t.Parallel(); hostile.Check(t, elf, 800, read) })
	t.Run("flattened elf", func(t *testing.T) { t.Parallel(); hostile.Check(t, flatten(elf, 3000), 6000, read) })
	for name, comp := range map[string]uint32{"raw": 0, "zlib": statusZlib, "lzo": statusLZO, "snappy": statusSnappy, "zstd": statusZstd} {
		kd := buildKdump(6, comp, 16, some, some, 0, 0)
		t.Run("kdump "+name, func(t *testing.T) { t.Parallel(); hostile.Check(t, kd, 4*testPage+16*descSize, read) })
	}
	t.Run("flattened kdump", func(t *testing.T) {
		t.Parallel()
		hostile.Check(t, flatten(buildKdump(6, statusZlib, 16, some, some, 0, 0), 2000), 9000, read)
	})
	a, b := buildKdump(6, statusZlib, 16, some, some, 0, 7), buildKdump(6, statusZlib, 16, some, some, 7, 16)
	t.Run("split", func(t *testing.T) {
		t.Parallel()
		hostile.Check(t, b, 2*testPage, func(b []byte) {
			if c, err := Open(file(a), file(b)); err == nil {
				for p := range 16 {
					pageIs(c, p)
				}
			}
		})
	})
	t.Run("vmcoreinfo", func(t *testing.T) {
		t.Parallel()
		hostile.Check(t, []byte(testInfo), 0, func(b []byte) { ParseInfo(b) })
	})
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte(testInfo))
	f.Fuzz(func(_ *testing.T, b []byte) { ParseInfo(b).KernelOffset() })
}
