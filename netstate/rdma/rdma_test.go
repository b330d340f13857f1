package rdma

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// tree makes a sysfs with a device in software and one on PCI.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"rxe0/parent": "eth0\n", "rxe0/ports/1/state": "4: ACTIVE\n", "rxe0/ports/1/link_layer": "Ethernet\n",
		"rxe0/ports/1/gids/0": "fe80:0000:0000:0000:5054:00ff:fe12:3456\n", "rxe0/ports/1/gid_attrs/types/0": "RoCE v2\n", "rxe0/ports/1/gid_attrs/ndevs/0": "eth0\n",
		"rxe0/ports/1/gids/1": "0000:0000:0000:0000:0000:0000:0000:0000\n",
		"rxe0/ports/1/gids/2": "0000:0000:0000:0000:0000:ffff:0a00:0001\n", "rxe0/ports/1/gid_attrs/types/2": "RoCE v2\n",
		"rxe0/ports/1/gids/3": "nonsense\n", "rxe0/ports/x/state": "4: ACTIVE\n",
		"mlx5_0/ports/1/state": "1: DOWN\n", "mlx5_0/ports/1/link_layer": "InfiniBand\n", "mlx5_0/ports/2/state": "4: ACTIVE\n",
	} {
		path := filepath.Join(root, class, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{
		filepath.Join(class, "mlx5_0/device"):   "../../../0000:03:00.0",
		filepath.Join("0000:03:00.0/subsystem"): "../bus/pci",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Join(root, "0000:03:00.0"), 0o755), os.Symlink(to, filepath.Join(root, from))); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestList(t *testing.T) {
	root := tree(t)
	got := List(root)
	want := []Device{
		{Name: "mlx5_0", PCI: "0000:03:00.0", Ports: []Port{{Number: 1, State: "DOWN", Link: "InfiniBand"}, {Number: 2, State: "ACTIVE"}}},
		{Name: "rxe0", Parent: "eth0", Ports: []Port{{Number: 1, State: "ACTIVE", Link: "Ethernet"}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	if !got[1].On("eth0", "") || got[1].On("eth1", "0000:03:00.0") || !got[0].On("eth1", "0000:03:00.0") || got[0].On("", "") {
		t.Error("which network devices they are on")
	}
	if a, b := got[0].Where(), got[1].Where(); a != "PCI 0000:03:00.0" || b != "on eth0" {
		t.Errorf("%q, %q", a, b)
	}
	if got := List(t.TempDir()); got != nil {
		t.Errorf("devices of nowhere: %v", got)
	}
	addresses := []GID{{0, netip.MustParseAddr("fe80::5054:ff:fe12:3456"), RoCE2, "eth0"}, {2, netip.MustParseAddr("::ffff:10.0.0.1"), RoCE2, ""}}
	if d := cmp.Diff(addresses, gids(filepath.Join(root, class, "rxe0/ports/1")), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

// TestSummary: the kernel's counts, in its order; what is short or of another type is left out.
func TestSummary(t *testing.T) {
	entry := func(name string, n []byte) []byte {
		return nlattr.Append(nlattr.Append(nil, attrKind, []byte(name+"\x00")), attrCount, n)
	}
	nest := nlattr.Append(nil, attrEntry, entry("qp", []byte{3, 0, 0, 0, 0, 0, 0, 0}))
	nest = nlattr.Append(nest, attrEntry+1, entry("no", nil))
	nest = nlattr.Append(nest, attrEntry, entry("mr", []byte{1}))
	a, err := nlattr.Parse(nlattr.Append(nil, attrSummary, nest))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Used{{"qp", 3}, {"mr", 0}}, summary(a)); d != "" {
		t.Error(d)
	}
	if a, b, c := driverName(14), driverName(1), driverName(99); a != "rxe" || b != "mlx5" || c != "driver 99" {
		t.Errorf("drivers %q, %q, %q", a, b, c)
	}
}

func FuzzSummary(f *testing.F) {
	f.Add([]byte("\x08\x00\x0f\x00\x04\x00\x10\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := nlattr.Parse(b)
		if err == nil && len(summary(a)) > len(b) {
			t.Error("more entries than bytes")
		}
		parseGID(string(b))
	})
}
