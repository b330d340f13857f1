// Package kmod knows a kernel's module folder: which modules there are, which are built in, what each depends on, and in
// which order they load. It reads what a kernel package ships (the .modinfo of each module, modules.builtin), because
// modules.dep is made by depmod when a package is installed, and ours are only unpacked.
//
// It does not resolve aliases, and does not load anything.
package kmod

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// MaxSize bounds a module after decompression; the largest in Debian's kernels (amdgpu with its symbols) has 30 MB.
const MaxSize = 256 << 20

// Info is what a module says about itself in .modinfo.
type Info struct {
	Name     string   // as lsmod prints it; empty in modules older than 4.12
	Depends  []string // modules whose symbols it uses; depmod's order
	SoftPre  []string // softdep "pre:": wanted before it if they exist
	Vermagic string
}

// Read returns the Info of a module, an ELF relocatable file.
func Read(module []byte) (Info, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return Info{}, fmt.Errorf("read module: %w", err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return Info{}, errors.New("read module: no .modinfo section")
	}
	if s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > uint64(len(module)) {
		return Info{}, errors.New("read module: .modinfo outside the file")
	}
	b, err := s.Data()
	if err != nil {
		return Info{}, fmt.Errorf("read module: .modinfo: %w", err)
	}
	return parse(b), nil
}

// parse splits .modinfo: NUL-terminated key=value strings, with NULs between for alignment.
func parse(b []byte) Info {
	var i Info
	for s := range bytes.SplitSeq(b, []byte{0}) {
		key, val, ok := strings.Cut(string(s), "=")
		if !ok {
			continue
		}
		switch key {
		case "name":
			i.Name = Name(val)
		case "vermagic":
			i.Vermagic = val
		case "depends":
			for d := range strings.SplitSeq(val, ",") {
				if d != "" {
					i.Depends = append(i.Depends, Name(d))
				}
			}
		case "softdep":
			i.SoftPre = append(i.SoftPre, softPre(val)...)
		}
	}
	return i
}

// softPre reads "pre: a b post: c" and returns a and b.
func softPre(val string) []string {
	var pre []string
	in := false
	for _, w := range strings.Fields(val) {
		switch {
		case w == "pre:":
			in = true
		case strings.HasSuffix(w, ":"):
			in = false
		case in:
			pre = append(pre, Name(w))
		}
	}
	return pre
}

// Name is the kernel's form of a module name or file name: without folder and suffixes, '_' for '-'.
func Name(s string) string {
	s = s[strings.LastIndexByte(s, '/')+1:]
	for _, suffix := range suffixes {
		s = strings.TrimSuffix(s, suffix)
	}
	return strings.ReplaceAll(s, "-", "_")
}

// suffixes of module files: the packed forms of CONFIG_MODULE_COMPRESS_*.
var suffixes = []string{".ko.xz", ".ko.zst", ".ko.gz", ".ko"}

// Decompress returns the module in b, packed or not: the magic decides, as in the kernel's module loader.
func Decompress(b []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		return b, nil
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		r, err = xz.ReaderConfig{DictCap: 64 << 20}.NewReader(bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		r, err = gzip.NewReader(bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxSize)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		return nil, errors.New("unpack module: neither ELF, xz, gzip nor zstd")
	}
	if err != nil {
		return nil, fmt.Errorf("unpack module: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("unpack module: %w", err)
	}
	if len(out) > MaxSize {
		return nil, fmt.Errorf("unpack module: over %d bytes", MaxSize)
	}
	return out, nil
}
