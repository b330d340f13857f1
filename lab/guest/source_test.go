package guest

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/oracle"
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
	merged := write("merged/usr/lib/modules/7.3/vmlinuz", nil)
	write("empty/x", nil)
	c := Cache{Dir: filepath.Join(dir, "cache")}
	for _, tt := range []struct{ ref, modules, release, image, mods string }{
		{image, "", "6.7.0-rc3-dirty", image, "/lib/modules/6.7.0-rc3-dirty"},
		{image, "/m", "6.7.0-rc3-dirty", image, "/m"},
		{filepath.Join(dir, "tree"), "", "6.8.0", filepath.Join(dir, "tree/arch/x86/boot/bzImage"), filepath.Join(dir, "tree")},
		{filepath.Join(dir, "pkg"), "", "6.9", filepath.Join(dir, "pkg/boot/vmlinuz-6.9"), ""},
		{filepath.Join(dir, "merged"), "", "7.3", merged, filepath.Dir(merged)},
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

// TestSplit takes a kernel of several packages, and again when one of them is newer.
func TestSplit(t *testing.T) {
	oracle.Path(t, "dpkg-deb")
	dir := t.TempDir()
	build := func(name, depends, file string) string {
		root := filepath.Join(dir, name)
		p := filepath.Join(root, "usr/lib/modules/7.3-x", file)
		control := "Package: " + name + "\nVersion: 7.3-1~bpo\nArchitecture: amd64\nMaintainer: me\nDescription: x\n" + depends
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755), os.WriteFile(p, nil, 0o644),
			os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644)); err != nil {
			t.Fatal(err)
		}
		deb := filepath.Join(dir, name+"_7.3-1~bpo_amd64.deb")
		if _, err := run(t.Context(), "", "dpkg-deb", "-Znone", "-b", root, deb); err != nil {
			t.Fatal(err)
		}
		return deb
	}
	deb := build("linux-image-7.3-x", "Depends: linux-base (>= 4), linux-base-7.3-x (= 7.3-1~bpo), linux-binary-7.3-x (= 7.3-1~bpo), linux-modules-7.3-x (= 7.3-1~bpo)\n", "README")
	build("linux-base-7.3-x", "", "modules.builtin")
	build("linux-binary-7.3-x", "", "vmlinuz")
	c := Cache{Dir: filepath.Join(dir, "cache")}
	_, err := c.Find(t.Context(), deb, "")
	var s *SetupError
	if !errors.As(err, &s) || !strings.Contains(s.Because, "no linux-modules-7.3-x_7.3-1~bpo_amd64.deb") || strings.Contains(s.Because, "binary") {
		t.Fatalf("without modules: %v", err)
	}
	modules := build("linux-modules-7.3-x", "", "kernel/veth.ko")
	for _, more := range []string{"", "kernel/newer.ko"} {
		if more != "" {
			build("linux-modules-7.3-x", "", more)
			if err := os.Chtimes(modules, time.Time{}, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		k, err := c.Find(t.Context(), deb, "")
		if err != nil || k.Release != "7.3-x" {
			t.Fatalf("%+v: %v", k, err)
		}
		for _, f := range []string{"modules.builtin", "kernel/veth.ko", more} {
			if _, err := os.Stat(filepath.Join(k.ModuleDir, f)); err != nil {
				t.Error(err)
			}
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
