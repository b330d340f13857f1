package vmcore

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// stream decompresses as the standard library does, up to one byte more than a page.
func stream(b []byte, size int) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(size)+1))
	if err == nil && len(out) > size {
		err = errLong
	}
	return out, err
}

// compareInflate wants what the standard library gives, and an error where it has one.
func compareInflate(t *testing.T, d *inflater, b []byte, size int) {
	t.Helper()
	want, err := stream(b, size)
	dst := make([]byte, size)
	n, got := d.page(dst, b)
	switch {
	case (got != nil) != (err != nil) && !errors.Is(err, errLong):
		t.Fatalf("%x: %v, and for the standard library %v", b, got, err)
	case errors.Is(err, errLong) && got == nil:
		t.Fatalf("%x: more than a page is none", b)
	case err == nil && !bytes.Equal(dst[:n], want):
		t.Fatalf("%x: %x, and for the standard library %x", b, dst[:n], want)
	}
}

// inflateSeeds are pages of several kinds, at all levels: what compresses well and what does not, few symbols and many, repeats near
// and far.
func inflateSeeds() (out [][]byte) {
	r := rand.New(rand.NewPCG(1, 2))
	pages := [][]byte{make([]byte, 4096), {}, {7}, bytes.Repeat([]byte("abc"), 1000), bytes.Repeat([]byte{0xff}, 300)}
	for _, symbols := range []int{2, 5, 17, 60, 256} {
		p := make([]byte, 4096)
		for i := range p {
			p[i] = byte(r.IntN(symbols) * r.IntN(symbols))
			if k := r.IntN(4000); r.IntN(3) == 0 && k < i {
				p[i] = p[k]
			}
		}
		pages = append(pages, p)
		far := append(append(bytes.Clone(p[:2000]), p[:2000]...), 1, 2, 3)
		pages = append(pages, far)
	}
	for _, p := range pages {
		for _, level := range []int{zlib.HuffmanOnly, zlib.NoCompression, zlib.BestSpeed, 6, zlib.BestCompression} {
			var b bytes.Buffer
			w, _ := zlib.NewWriterLevel(&b, level)
			half := len(p) / 2
			_, _ = w.Write(p[:half])
			if level == 6 {
				_ = w.Flush() // several blocks, one of them empty and stored
			}
			_, _ = w.Write(p[half:])
			_ = w.Close()
			out = append(out, b.Bytes())
		}
	}
	return out
}

// TestInflate decompresses what was compressed, what of it was cut short or changed, and wants what the standard library makes of it.
func TestInflate(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var d inflater
	n := 0
	for _, b := range inflateSeeds() {
		for _, size := range []int{4096, 4095, 100, 0} {
			compareInflate(t, &d, b, size)
		}
		compareInflate(t, &d, append(bytes.Clone(b), "behind"...), 4096)
		for cut := 0; cut < len(b); cut += 1 + r.IntN(40) {
			compareInflate(t, &d, b[:cut], 4096)
		}
		for range 50 {
			c := bytes.Clone(b)
			for range 1 + r.IntN(3) {
				c[r.IntN(min(len(c), 1+r.IntN(len(c))))] ^= 1 << r.IntN(8)
			}
			compareInflate(t, &d, c, 4096)
			n++
		}
	}
	t.Logf("%d changed ones", n)
}

func FuzzInflate(f *testing.F) {
	for _, b := range inflateSeeds() {
		f.Add(b)
	}
	var d inflater
	f.Fuzz(func(t *testing.T, b []byte) { compareInflate(t, &d, b, 4096) })
}

func BenchmarkInflate(b *testing.B) {
	var d inflater
	dst := make([]byte, 4096)
	seeds := inflateSeeds()
	page := seeds[len(seeds)-27] // of level 6
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.page(dst, page); err != nil {
			b.Fatal(err)
		}
	}
}
