package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPhysical tells what an address is of by the files of a machine with a card.
func TestPhysical(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("iomem", "c0000000-febfffff : PCI Bus 0000:00\n  feb80000-feb9ffff : 0000:00:03.0\n    feb80000-feb9ffff : igb\n")
	const dev = "bus/pci/devices/0000:00:03.0/"
	put(dev+"resource", "0x00000000feb80000 0x00000000feb9ffff 0x0000000000040200\n")
	put(dev+"vendor", "0x8086\n")
	put(dev+"device", "0x10c9\n")
	put(dev+"net/eth7/x", "")
	if err := os.Symlink("../../drivers/igb", filepath.Join(root, dev, "driver")); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := physicalOf(&b, root, root, 0xfeb80010); err != nil {
		t.Fatal(err)
	}
	want := `physical 0xfeb80010
  belongs   PCI Bus 0000:00 (c0000000-febfffff) → 0000:00:03.0 (feb80000-feb9ffff) → igb (feb80000-feb9ffff)
  device    0000:00:03.0 8086:10c9, driver igb
  window    BAR 0, 0x10 bytes behind its begin, of 128 KiB
  network   eth7
`
	if b.String() != want {
		t.Errorf("%s\nand not\n%s", b.String(), want)
	}
	put("iomem", "00000000-00000000 : PCI Bus 0000:00\n")
	if err := physicalOf(&b, root, root, 1); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("addresses that are hidden: %v", err)
	}
	put("0x10", "")
	for _, tt := range []struct {
		arg          string
		physical, ok bool
	}{{"0xfebc0000", true, true}, {"0xffffffff81234567", false, true}, {"oops.txt", false, false}, {"0xzz", false, false}, {filepath.Join(root, "0x10"), false, false}} {
		if physical, ok := plainAddress([]string{tt.arg}); physical != tt.physical && ok || ok != tt.ok {
			t.Errorf("%s: %v %v", tt.arg, physical, ok)
		}
	}
}
