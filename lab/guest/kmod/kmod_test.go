package kmod

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ko builds the smallest module: an ELF header, .modinfo, .shstrtab, and the section headers.
func ko(modinfo ...string) []byte {
	le := binary.LittleEndian
	info := []byte(strings.Join(modinfo, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	b := make([]byte, 64, 512)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 1)  // ET_REL
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(64+len(info)+len(names))) // e_shoff
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64) // e_shentsize
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2) // e_shstrndx
	b = append(append(b, info...), names...)
	section := func(name, typ uint32, off, size int) {
		s := make([]byte, 64)
		le.PutUint32(s, name)
		le.PutUint32(s[4:], typ)
		le.PutUint64(s[24:], uint64(off))
		le.PutUint64(s[32:], uint64(size))
		b = append(b, s...)
	}
	section(0, 0, 0, 0)
	section(1, 1, 64, len(info))
	section(10, 3, 64+len(info), len(names))
	return b
}

func packed(t testing.TB, kind string, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	var err error
	switch kind {
	case "xz":
		w, err = xz.NewWriter(&buf)
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "zstd":
		w, err = zstd.NewWriter(&buf)
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRead(t *testing.T) {
	got, err := Read(ko("license=GPL", "depends=virtio,virtio-ring,", "name=virtio_net", "softdep=pre: failover x-y post: z",
		"vermagic=6.1.0 SMP", "noequals"))
	want := Info{Name: "virtio_net", Depends: []string{"virtio", "virtio_ring"}, SoftPre: []string{"failover", "x_y"}, Vermagic: "6.1.0 SMP"}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Error(err, cmp.Diff(want, got))
	}
	for _, bad := range [][]byte{nil, []byte("\x7fELF"), ko()[:80], bytes.Replace(ko(), []byte(".modinfo"), []byte(".modinfx"), 1)} {
		if _, err := Read(bad); err == nil {
			t.Errorf("%d bytes: no error", len(bad))
		}
	}
}

func TestDecompress(t *testing.T) {
	mod := ko("name=x")
	for _, kind := range []string{"xz", "gzip", "zstd"} {
		got, err := Decompress(packed(t, kind, mod))
		if err != nil || !bytes.Equal(got, mod) {
			t.Error(kind, err, len(got))
		}
		if _, err := Decompress(packed(t, kind, mod)[:40]); err == nil {
			t.Error(kind, "truncated: no error")
		}
	}
	if _, err := Decompress([]byte("text")); err == nil {
		t.Error("text accepted")
	}
}

func TestResolve(t *testing.T) {
	file := func(b []byte) *fstest.MapFile { return &fstest.MapFile{Data: b} }
	d, err := Open(fstest.MapFS{
		"modules.builtin":            file([]byte("kernel/drivers/virtio/virtio-ring.ko\nkernel/fs/ext4.ko\n")),
		"kernel/net/virtio-net.ko":   file(ko("depends=net_failover,virtio_ring", "name=virtio_net")),
		"kernel/net/net_failover.ko": file(ko("depends=failover", "name=net_failover")),
		"kernel/net/failover.ko.xz":  file(packed(t, "xz", ko("depends=", "name=failover"))),
		"kernel/net/veth.ko":         file(ko("softdep=pre: failover crypto-crc32c", "name=veth")),
		"kernel/net/broken.ko":       file(ko("depends=gone")),
		"kernel/net/loop-a.ko":       file(ko("depends=loop_b")),
		"kernel/net/loop_b.ko":       file(ko("depends=loop_a")),
		"kernel/net/README":          file([]byte("no module")),
	})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ in, want, err string }{
		{in: "virtio-net", want: "failover net_failover virtio_net"},
		{in: "veth virtio_net veth", want: "failover veth net_failover virtio_net"},
		{in: "ext4 virtio_ring", want: ""},
		{in: "nosuch", err: "module nosuch: not found, and not built in"},
		{in: "broken", err: "module gone: not found, needed by broken"},
		{in: "loop-a", err: "module loop_a: depends on itself through loop_b"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			mods, err := d.Resolve(strings.Fields(tt.in)...)
			var got []string
			for _, m := range mods {
				got = append(got, m.Name)
			}
			if msg := errString(err); msg != tt.err || strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, %q; want %s, %q", got, msg, tt.want, tt.err)
			}
		})
	}
	var nf *NotFoundError
	if _, err := d.Load("nosuch"); !errors.As(err, &nf) {
		t.Error(err)
	}
	if !d.Builtin("virtio-ring") || d.Builtin("veth") || !d.Has("veth") || d.Has("nosuch") {
		t.Error("Builtin or Has is wrong")
	}
}

// errString is the text of an error that may be nil.
func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzRead(f *testing.F) {
	f.Add(ko("depends=a,b", "name=c", "softdep=pre: x"))
	f.Add(packed(f, "xz", ko("name=c")))
	f.Add(packed(f, "zstd", ko("name=c")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Decompress(b); err == nil {
			Read(m)
		}
	})
}
