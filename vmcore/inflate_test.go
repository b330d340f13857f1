package vmcore

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// zlibPages are pages as compressors write them: every kind of block, and codes longer than one look decodes.
func zlibPages(t testing.TB) (out [][]byte) {
	rng := rand.New(rand.NewPCG(1, 2))
	code, err := os.ReadFile("inflate.go")
	if err != nil {
		t.Fatal(err)
	}
	skewed, noise := make([]byte, testPage), make([]byte, testPage)
	for i := range skewed {
		skewed[i] = byte(min(rng.ExpFloat64()*12, 255)) // half of the bytes are few, others come once
		noise[i] = byte(rng.Uint32())
	}
	for _, page := range [][]byte{make([]byte, testPage), pageOf(3), code[:testPage], skewed, noise, noise[:0], []byte("a")} {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			var b bytes.Buffer
			w, err := zlib.NewWriterLevel(&b, level)
			if err == nil {
				_, err = w.Write(page)
			}
			if err := errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			out = append(out, b.Bytes())
		}
	}
	// What Go's writer does not make: a block of fixed codes, and one that says how long each code is.
	return append(out, []byte("x\x9cKLJN\x04\x00\x03\xd4\x01\x8a"), []byte("x\x9c\x4b\x04\x00\x00b\x00b"))
}

// inflated is what the library makes of a stream, if it is one and no more than a page.
func inflated(src []byte) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(src))
	if err != nil {
		return nil, fmt.Errorf("library: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(r, testPage+1))
	if err == nil && len(b) > testPage {
		err = errTrailing
	}
	return b, err
}

// agree compares with the library: the same bytes, or refused by both.
func agree(t *testing.T, f *inflater, src []byte) {
	t.Helper()
	want, refused := inflated(src)
	var page [testPage]byte
	n, err := f.page(page[:], src)
	if (err == nil) != (refused == nil) {
		t.Fatalf("%x: %v, the library says %v", src, err, refused)
	}
	if err == nil && !bytes.Equal(page[:n], want) {
		t.Fatalf("%x: other bytes than the library's", src)
	}
}

func TestInflate(t *testing.T) {
	var f inflater
	rng := rand.New(rand.NewPCG(3, 4))
	good := 0
	for _, z := range zlibPages(t) {
		agree(t, &f, z)
		if _, err := inflated(z); err == nil {
			good++
		}
		for i := range min(len(z), 300) {
			agree(t, &f, z[:i])
			spoiled := bytes.Clone(z)
			spoiled[rng.IntN(len(z))] ^= 1 << rng.IntN(8)
			agree(t, &f, spoiled)
		}
	}
	if good < 70 {
		t.Errorf("%d streams are good", good)
	}
	sum := bytes.Clone(zlibPages(t)[0])
	sum[len(sum)-1]++
	if _, err := f.page(make([]byte, testPage), sum); !errors.Is(err, errSum) {
		t.Errorf("a wrong checksum: %v", err)
	}
	if _, err := f.page(make([]byte, testPage-1), zlibPages(t)[0]); !errors.Is(err, errTrailing) {
		t.Errorf("a page too much: %v", err)
	}
}

func FuzzInflate(f *testing.F) {
	for _, z := range zlibPages(f) {
		f.Add(z)
	}
	f.Fuzz(func(t *testing.T, src []byte) { agree(t, &inflater{}, src) })
}

func BenchmarkInflate(b *testing.B) {
	pages := zlibPages(b)
	code := pages[2*(flate.BestCompression-flate.HuffmanOnly+1)+int(flate.BestSpeed-flate.HuffmanOnly)]
	var f inflater
	page := make([]byte, testPage)
	b.SetBytes(testPage)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.page(page, code); err != nil {
			b.Fatal(err)
		}
	}
}
