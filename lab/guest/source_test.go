package guest

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bzImage is the beginning of one: boot.rst's header and a version text.
func bzImage(version string) []byte {
	b := make([]byte, 0x1000)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x300)
	copy(b[0x500:], version+"\x00")
	return b
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, b, 0o644)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	image := write("bz", bzImage("6.7.0-rc3-dirty (me@here) #1"))
	write("tree/arch/x86/boot/bzImage", bzImage("6.8.0 (x)"))
	write("pkg/boot/vmlinuz-6.9", nil)
	write("empty/x", nil)
	c := Cache{Dir: filepath.Join(dir, "cache")}
	for _, tt := range []struct{ ref, modules, release, image, mods string }{
		{image, "", "6.7.0-rc3-dirty", image, "/lib/modules/6.7.0-rc3-dirty"},
		{image, "/m", "6.7.0-rc3-dirty", image, "/m"},
		{filepath.Join(dir, "tree"), "", "6.8.0", filepath.Join(dir, "tree/arch/x86/boot/bzImage"), filepath.Join(dir, "tree")},
		{filepath.Join(dir, "pkg"), "", "6.9", filepath.Join(dir, "pkg/boot/vmlinuz-6.9"), ""},
	} {
		k, err := c.Find(t.Context(), tt.ref, tt.modules)
		if err != nil || k.Release != tt.release || k.Image() != tt.image || k.ModuleDir != tt.mods {
			t.Errorf("%s: %+v: %v", tt.ref, k, err)
		}
	}
	for ref, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", filepath.Join(dir, "empty"): "neither arch/x86/boot/bzImage",
		write("text", []byte("no kernel")): "no HdrS",
	} {
		_, err := c.Find(t.Context(), ref, "")
		var s *SetupError
		if !errors.As(err, &s) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", ref, err, want)
		}
	}
}

func FuzzRelease(f *testing.F) {
	f.Add(bzImage("6.7.0 (x)"))
	f.Add([]byte("HdrS"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseRelease("fuzz", b)
	})
}
