// Package bzimage unpacks an x86 kernel image (bzImage, vmlinuz): the ELF file of the kernel, without symbols, but with its
// sections, BTF among them.
//
// The layout is Documentation/arch/x86/boot.rst, boot protocol 2.08 (Linux 2.6.26) and later. Payloads of gzip, zstd, lz4
// and xz are read, those of lzma, bzip2 and lzo are named and not read.
package bzimage

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// FormatError is an image that cannot be read.
type FormatError struct {
	Off int64
	Msg string
}

// Error gives offset and reason.
func (e *FormatError) Error() string { return fmt.Sprintf("kernel image at %#x: %s", e.Off, e.Msg) }

// MaxSize bounds the kernel after decompression; Debian's 6.12 has 58 MB.
const MaxSize = 512 << 20

// Offsets in the setup header.
const (
	setupSectsAt    = 0x1f1 // u8: sectors of setup code behind the first; 0 is 4
	magicAt         = 0x202
	versionAt       = 0x206 // u16
	payloadOffsetAt = 0x248 // u32, from the protected-mode code on
	payloadLengthAt = 0x24c // u32
	headerEnd       = 0x250
)

// Vmlinux returns the ELF file in an image.
func Vmlinux(image []byte) ([]byte, error) {
	if len(image) < headerEnd || string(image[magicAt:magicAt+4]) != "HdrS" {
		return nil, &FormatError{magicAt, "no HdrS: it is no bzImage"}
	}
	if v := binary.LittleEndian.Uint16(image[versionAt:]); v < 0x208 {
		return nil, &FormatError{versionAt, fmt.Sprintf("boot protocol %d.%d does not say where the kernel is", v>>8, v&255)}
	}
	sects := uint64(image[setupSectsAt])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*512 + uint64(binary.LittleEndian.Uint32(image[payloadOffsetAt:]))
	n := uint64(binary.LittleEndian.Uint32(image[payloadLengthAt:]))
	if n < 8 || start+n > uint64(len(image)) {
		return nil, &FormatError{payloadOffsetAt, fmt.Sprintf("the payload, %d bytes at %#x, is outside the file", n, start)}
	}
	payload := image[start : start+n]
	r, err := open(payload)
	if err != nil {
		return nil, &FormatError{int64(start), err.Error()}
	}
	// The size, which the build appends, saves growing the buffer; nothing depends on its being true.
	out := bytes.NewBuffer(make([]byte, 0, min(uint64(binary.LittleEndian.Uint32(payload[n-4:])), 8*n)+512))
	_, err = io.Copy(out, io.LimitReader(r, MaxSize+1))
	switch {
	case out.Len() > MaxSize:
		return nil, &FormatError{int64(start), fmt.Sprintf("the kernel is over %d bytes", MaxSize)}
	case !bytes.HasPrefix(out.Bytes(), []byte("\x7fELF")):
		return nil, &FormatError{int64(start), fmt.Sprintf("the payload does not unpack to an ELF file: %v", err)}
	}
	// Behind the compressed data is its size, which the reader of some formats takes for the start of more, and fails.
	return out.Bytes(), nil
}

// open chooses the format by magic, as scripts/extract-vmlinux does.
func open(b []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err == nil {
			r.Multistream(false)
		}
		return r, err
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxSize), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return r.IOReadCloser(), nil
	case bytes.HasPrefix(b, []byte("\x02\x21\x4c\x18")):
		return lz4.NewReader(bytes.NewReader(b)), nil
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		return bytes.NewReader(b), nil
	}
	if bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")) {
		out, err := unxz(b)
		if len(out) == 0 {
			return nil, err
		}
		return bytes.NewReader(out), nil
	}
	for magic, name := range map[string]string{"\x5d\x00\x00": "lzma", "BZh": "bzip2", "\x89LZO": "lzo"} {
		if bytes.HasPrefix(b, []byte(magic)) {
			return nil, fmt.Errorf("the kernel is compressed with %s, which is not read", name)
		}
	}
	return nil, fmt.Errorf("no compression is known that begins with % x", b[:4])
}
