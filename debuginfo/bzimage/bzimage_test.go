package bzimage

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// image makes a bzImage around a payload.
func image(payload []byte) []byte {
	b := make([]byte, 5*512+0x40)
	copy(b[magicAt:], "HdrS")
	binary.LittleEndian.PutUint16(b[versionAt:], 0x20f)
	b[setupSectsAt] = 4
	binary.LittleEndian.PutUint32(b[payloadOffsetAt:], 0x40)
	binary.LittleEndian.PutUint32(b[payloadLengthAt:], uint32(len(payload)+4))
	return append(append(b, payload...), 1, 2, 3, 4)
}

func pack(t testing.TB, w func(io.Writer) (io.WriteCloser, error), data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	c, err := w(&out)
	if err == nil {
		_, err = c.Write(data)
	}
	if err = errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packed(t testing.TB, data []byte) map[string][]byte {
	return map[string][]byte{
		"gzip": pack(t, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }, data),
		"zstd": pack(t, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }, data),
		"lz4": pack(t, func(w io.Writer) (io.WriteCloser, error) {
			z := lz4.NewWriter(w)
			return z, z.Apply(lz4.LegacyOption(true))
		}, data),
	}
}

func TestVmlinux(t *testing.T) {
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel text "), 1<<16)...)
	for name, p := range packed(t, elf) {
		got, err := Vmlinux(image(p))
		if err != nil || !bytes.HasPrefix(got, elf) {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(got), len(elf), err)
		}
	}
}

func TestErrors(t *testing.T) {
	old := image(nil)
	binary.LittleEndian.PutUint16(old[versionAt:], 0x207)
	for want, b := range map[string][]byte{
		"kernel image at 0x202: no HdrS: it is no bzImage":                                          make([]byte, 4096),
		"kernel image at 0x206: boot protocol 2.7 does not say where the kernel is":                 old,
		"kernel image at 0x248: the payload, 4 bytes at 0xa40, is outside the file":                 image(nil),
		"kernel image at 0xa40: the kernel is compressed with lzma, which is not read":              image([]byte("\x5d\x00\x00..")),
		"kernel image at 0xa40: the xz block header is damaged":                                     image([]byte("\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
		"kernel image at 0xa40: no compression is known that begins with 61 62 63 64":               image([]byte("abcdefgh")),
		"kernel image at 0xa40: the payload does not unpack to an ELF file: gzip: invalid checksum": image(damaged(t)),
	} {
		if _, err := Vmlinux(b); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func damaged(t *testing.T) []byte {
	b := packed(t, []byte("not ELF"))["gzip"]
	b[len(b)-5] ^= 1
	return b
}

// TestReal unpacks the kernels of the lab, where they are.
func TestReal(t *testing.T) {
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	images, _ := filepath.Glob(filepath.Join(dir, "fathom", "kernels", "*", "boot", "vmlinuz-*"))
	if len(images) == 0 {
		t.Skip("no kernels in the cache")
	}
	for _, name := range images {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Vmlinux(b)
		if err != nil || len(got) < 3*len(b) {
			t.Errorf("%s: %d bytes of %d: %v", name, len(got), len(b), err)
			continue
		}
		f, err := elf.NewFile(bytes.NewReader(got))
		if err != nil {
			t.Fatal(err)
		}
		// Calls in the text are what the converter of xz changes: a function begins behind most of the first ones.
		text, err := f.Section(".text").Data()
		if n, of := goodCalls(text); err != nil || n < of*9/10 {
			t.Errorf("%s: %d of %d calls go to the start of a function: %v", name, n, of, err)
		}
	}
}

// goodCalls counts, among the first calls of a text, those whose target is 16-byte aligned and in the text.
func goodCalls(text []byte) (n, of int) {
	for i := 0; i+5 < len(text) && of < 1000; i++ {
		if text[i] != 0xe8 {
			continue
		}
		to := int64(i) + 5 + int64(int32(binary.LittleEndian.Uint32(text[i+1:])))
		if to < 0 || to >= int64(len(text)) {
			continue
		}
		of++
		if to%16 == 0 {
			n++
		}
	}
	return n, of
}

func FuzzVmlinux(f *testing.F) {
	for _, p := range packed(f, []byte("\x7fELF kernel")) {
		f.Add(image(p))
	}
	f.Add(image([]byte("\xfd7zXZ\x00\x00\x01\x69\x22\xde\x36\x03\x01\x04\x00\x21\x01\x16\x00\x00\x00\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := Vmlinux(b); err == nil && !bytes.HasPrefix(out, []byte("\x7fELF")) {
			t.Error("no ELF file")
		}
	})
}
