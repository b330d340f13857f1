package walk

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const iomem = `00000000-00000fff : Reserved
00100000-3ffdefff : System RAM
  01000000-02206447 : Kernel code
c0000000-febfffff : PCI Bus 0000:00
  feb80000-feb9ffff : 0000:00:03.0
    feb80000-feb9ffff : e1000e
nonsense
`

func TestParseIomem(t *testing.T) {
	all := ParseIomem(iomem)
	want := []Resource{{0xc0000000, 0xfebfffff, "PCI Bus 0000:00", 0}, {0xfeb80000, 0xfeb9ffff, "0000:00:03.0", 1}, {0xfeb80000, 0xfeb9ffff, "e1000e", 2}}
	if d := cmp.Diff(want, Around(all, 0xfeb80010)); d != "" || len(all) != 6 {
		t.Error(len(all), d)
	}
}

func TestParseBARs(t *testing.T) {
	d := PCIDevice{BARs: ParseBARs("0x0000000000001000 0x000000000000101f 0x0000000000040101\n" +
		"0x00000000feb80000 0x00000000feb9ffff 0x0000000000040200\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n")}
	n, b, ok := d.Window(0xfeb80010)
	if want := (BAR{Start: 0xfeb80000, End: 0xfeb9ffff}); !ok || n != 1 || b != want {
		t.Error(n, b, ok)
	}
	for _, at := range []uint64{0, 0x1000, 0xfeba0000} { // no window; ports; behind it
		if n, b, ok := d.Window(at); ok {
			t.Errorf("%#x is in %d: %+v", at, n, b)
		}
	}
}

// FuzzParse: nothing that the files might hold makes a window or a range that ends before it begins.
func FuzzParse(f *testing.F) {
	f.Add(iomem, uint64(0xfeb80010))
	f.Add("0x1 0xffffffffffffffff 0x200\n0x5 0x1 0x200\n", uint64(3))
	f.Fuzz(func(t *testing.T, text string, at uint64) {
		for _, r := range Around(ParseIomem(text), at) {
			if at < r.Start || at > r.End || r.Depth < 0 {
				t.Errorf("%#x in %+v", at, r)
			}
		}
		bars := ParseBARs(text)
		if len(bars) > pciBARs {
			t.Errorf("%d windows", len(bars))
		}
		for _, b := range bars {
			if b.End < b.Start {
				t.Errorf("%+v", b)
			}
		}
	})
}
