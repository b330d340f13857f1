package vmcore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zlib"
)

const testInfo = "OSRELEASE=6.12.0\nBUILD-ID=abcd\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82000000\nNUMBER(phys_base)=-220200960\nSIZE(page)=64\nOFFSET(page.flags)=0\nLENGTH(free_area)=11\nKERNELOFFSET=1000000\n"

func TestELF(t *testing.T) {
	b := buildELF(testInfo,
		seg{phys: 0x1000, virt: 0xffffffff81000000, filesz: 0x3000, memsz: 0x3000},
		seg{phys: 0, virt: 0xff11000000000000, filesz: 0x8000, memsz: 0x8000}, // covers the one before
		seg{phys: 0x10000, filesz: 0x1000, memsz: 0x4000})
	c := mustOpen(t, b)
	got := map[int]string{}
	for p := range 24 {
		if s := pageIs(c, p); s != "ok" {
			got[p] = s
		}
	}
	want := map[int]string{17: string(Excluded), 18: string(Excluded), 19: string(Excluded)}
	for p := 8; p < 24; p++ {
		if p < 16 || p > 19 {
			want[p] = string(NotDumped)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if rip, ok := c.CPUs[0].Get("rip"); !ok || rip != 0xffffffff81000123 {
		t.Errorf("rip %#x", rip)
	}
	if c.Info == nil || c.Info.Release != "6.12.0" || c.Info.Numbers["phys_base"] != -220200960 || c.Info.KernelOffset() != 0x1000000 || c.Info.Lengths["free_area"] != 11 {
		t.Errorf("%+v", c.Info)
	}
	if d := cmp.Diff([]Range{{0, 0x8000}, {0x10000, 0x11000}}, c.Ranges()); d != "" {
		t.Error(d)
	}
	var m *MissingError
	if err := c.ReadPhys(make([]byte, 16), 0x7ff8); !errors.As(err, &m) || m.Addr != 0x8000 {
		t.Errorf("read over the end: %v", err)
	}
}

// TestKdump reads every version and compression, as it is and flattened.
func TestKdump(t *testing.T) {
	const pages = 5000 // more than one entry of the rank table
	dumped := func(p int) bool { return p%3 != 1 }
	exists := func(p int) bool { return p%9 != 1 }
	for version := 1; version <= 6; version++ {
		for _, comp := range []uint32{0, statusZlib, statusLZO, statusSnappy, statusZstd} {
			b := buildKdump(version, comp, pages, dumped, exists, 0, 0)
			for _, in := range [][]byte{b, flatten(b, 1<<16)} {
				c := mustOpen(t, in)
				for _, p := range []int{0, 1, 2, 4, 10, 4094, 4095, 4096, 4098, 4999, 5000, 1 << 40} {
					want := "ok"
					switch {
					case p >= pages || p%9 == 1:
						want = string(NotDumped)
					case p%3 == 1:
						want = string(Excluded)
					}
					if got := pageIs(c, p); got != want {
						t.Errorf("version %d, compression %#x, flattened %v: page %d is %s, not %s", version, comp, c.Flattened, p, got, want)
					}
				}
			}
		}
	}
}

func TestSplit(t *testing.T) {
	all := func(p int) bool { return p%5 != 0 }
	for _, version := range []int{2, 6} {
		a := buildKdump(version, statusZlib, 300, all, all, 0, 101)
		b := buildKdump(version, statusZlib, 300, all, all, 101, 300)
		for _, c := range []*Core{mustOpen(t, a, b), mustOpen(t, b, a)} {
			for p := range 300 {
				want := "ok"
				if p%5 == 0 {
					want = string(NotDumped)
				}
				if got := pageIs(c, p); got != want {
					t.Fatalf("version %d: page %d is %s", version, p, got)
				}
			}
		}
	}
}

// TestFindInfo finds VMCOREINFO in memory where the file has no note.
func TestFindInfo(t *testing.T) {
	b := buildELF("", seg{phys: 0x1000, filesz: 0x8000, memsz: 0x8000})
	copy(b[len(b)-0x3000:], "OSRELEASE=decoy\n\x00") // at the start of a page, but not it
	copy(b[len(b)-0x2000:], testInfo+"\x00")
	c := mustOpen(t, b)
	if !c.FindInfo() || c.Info.Release != "6.12.0" || c.Info.Found != 0x7000 {
		t.Errorf("%+v", c.Info)
	}
}

// TestTruncated cuts files short at many places: what is read is right or missing, never something else.
func TestTruncated(t *testing.T) {
	yes := func(int) bool { return true }
	kd := buildKdump(6, statusZlib, 64, yes, yes, 0, 0)
	for name, b := range map[string][]byte{
		"elf": buildELF(testInfo, seg{filesz: 64 * testPage, memsz: 64 * testPage}), "kdump": kd, "flattened": flatten(kd, 1000),
	} {
		for i := range 500 {
			c, err := Open(file(b[:len(b)*i/500]))
			if err != nil {
				continue
			}
			for p := range 64 {
				if s := pageIs(c, p); len(s) > 11 && s[:11] == "wrong bytes" && !c.Flattened {
					t.Fatalf("%s cut at %d: page %d: %s", name, len(b)*i/500, p, s)
				}
			}
		}
	}
}

// TestDisjoint compares the cutting of extents with painting them.
func TestDisjoint(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var in []extent
		paint := make([]int64, 100)
		for i := range 12 {
			e := extent{at: uint64(rng.IntN(80)), n: uint64(rng.IntN(20)), off: int64(1000 * (i + 1))}
			in = append(in, e)
			for k := range e.n {
				paint[e.at+k] = e.off + int64(k)
			}
		}
		got := make([]int64, 100)
		last := uint64(0)
		out := disjoint(in)
		for _, e := range out {
			if e.at < last {
				t.Fatalf("overlap at %d in %v", e.at, out)
			}
			last = e.end()
			for k := range e.n {
				got[e.at+k] = e.off + int64(k)
			}
		}
		if d := cmp.Diff(paint, got); d != "" {
			t.Fatalf("%v: %s", in, d)
		}
	}
}

func FuzzOpen(f *testing.F) {
	yes := func(p int) bool { return p%2 == 0 }
	f.Add(buildELF(testInfo, seg{filesz: testPage, memsz: 2 * testPage}))
	for _, comp := range []uint32{statusZlib, statusLZO, statusSnappy, statusZstd} {
		b := buildKdump(6, comp, 4, yes, yes, 0, 0)
		f.Add(b)
		f.Add(flatten(b, 500))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		c, err := Open(file(b))
		if err != nil {
			return
		}
		p := make([]byte, 100)
		for _, r := range c.Ranges()[:min(8, len(c.Ranges()))] {
			_ = c.ReadPhys(p, r.Start)
			_ = c.ReadPhys(p, r.End-50)
		}
		_ = c.ReadPhys(p, 0)
	})
}

func ExampleOpen() {
	b := buildELF("OSRELEASE=6.12.0\n", seg{filesz: testPage, memsz: testPage})
	c, err := Open(file(b))
	if err != nil {
		fmt.Println(err)
		return
	}
	var p [4]byte
	fmt.Println(c.Format, c.Info.Release, c.ReadPhys(p[:], 0))
	fmt.Println(c.ReadPhys(p[:], 1<<30))
	// Output:
	// ELF core 6.12.0 <nil>
	// physical memory at 0x40000000 is not in the dump
}

// TestChecksum: a page whose checksum is of other bytes is damaged, and so is a stream that goes on behind the page.
func TestChecksum(t *testing.T) {
	var d decompressor
	stream := func(page []byte) []byte {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		if _, err := w.Write(page); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	dst := make([]byte, testPage)
	good := stream(pageOf(3))
	if err := d.page(dst, good, pageZlib); err != nil || !bytes.Equal(dst, pageOf(3)) {
		t.Errorf("a page: %v", err)
	}
	bad := slices.Clone(good)
	bad[len(bad)-1] ^= 1
	if err := d.page(dst, bad, pageZlib); !errors.Is(err, errChecksum) {
		t.Errorf("a wrong checksum: %v", err)
	}
	if err := d.page(dst, stream(append(pageOf(3), 1)), pageZlib); !errors.Is(err, errLong) {
		t.Errorf("more than a page: %v", err)
	}
}

// TestDamagedOnce: what does not decompress is tried once; its error says where it was asked for.
func TestDamagedOnce(t *testing.T) {
	all := func(int) bool { return true }
	raw := buildKdump(6, statusZlib, 4, all, all, 0, 0)
	for i := range raw[len(raw)-16:] { // of the last page
		raw[len(raw)-16+i] = 0xff
	}
	f := &countedReads{Reader: bytes.NewReader(raw)}
	c, err := Open(File{f, int64(len(raw))})
	if err != nil {
		t.Fatal(err)
	}
	after := 0
	for i := range 100 {
		var b [8]byte
		at := uint64(3*testPage + 8*i)
		var m *MissingError
		if err := c.ReadPhys(b[:], at); !errors.As(err, &m) || m.Reason != Damaged || m.Addr != at {
			t.Fatalf("%#x: %v", at, err)
		}
		if i == 0 {
			after = f.n
		}
	}
	if f.n != after {
		t.Errorf("%d reads for a page that is damaged, %d once it was known", after, f.n-after)
	}
	if got := pageIs(c, 2); got != "ok" {
		t.Errorf("the page before it: %s", got)
	}
}

// countedReads counts how often it is read.
type countedReads struct {
	*bytes.Reader
	n int
}

func (r *countedReads) ReadAt(p []byte, off int64) (int, error) {
	r.n++
	return r.Reader.ReadAt(p, off)
}
