package nic_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/modules"
)

// guests have an e1000e and a virtio card that are joined, and a virtio card with four queues.
// What e1000e maps goes through a swiotlb of 512 slots: more than its ring needs, and less than one that is enlarged.
var guests = ktest.Config{Modules: []string{"virtio_net", "e1000e", "veth", "vxlan", "sctp_diag", "vsock_diag"}, CPUs: 4, Append: []string{"swiotlb=512,force"}}

// Modules of package lab/modules that tests load.
const (
	lateModule = "/fathom_late.ko"
	ktcpModule = "/fathom_ktcp.ko"
)

func TestMain(m *testing.M) { ktest.Main(m, guests) }

func TestGuest(t *testing.T) {
	c := guests
	c.Kernels = []string{"debian-6.12", "debian-6.1"}
	c.Each = func(t *testing.T, kernel string, c *ktest.Config) {
		c.Files = append(ethtool(t), guest.File{Name: lateModule, Path: build(t, kernel, "late")}, guest.File{Name: ktcpModule, Path: build(t, kernel, "ktcp")})
		args, remove := multiQueue(t)
		t.Cleanup(remove)
		c.QEMUArgs = append(args,
			"-netdev", "hubport,id=h1,hubid=1", "-device", "e1000e,netdev=h1,romfile=",
			"-netdev", "hubport,id=h2,hubid=1", "-device", "virtio-net-pci,netdev=h2,romfile=")
	}
	ktest.Guests(t, c)
}

// build builds a module to learn from for a kernel.
func build(t *testing.T, kernel, module string) string {
	cache, err := guest.UserCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := cache.Find(t.Context(), kernel, "")
	if err != nil {
		t.Fatal(err)
	}
	headers, err := cache.BuildDir(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	ko, err := modules.Build(t.Context(), module, headers, filepath.Join(cache.Dir, "modules", k.Release, module))
	if err != nil {
		t.Fatal(err)
	}
	return ko
}

// multiQueue makes a tap for a card with four queues: QEMU has no other network that has them. The tap goes with who has it
// open: QEMU, and this process, which keeps a queue that gets nothing.
func multiQueue(t *testing.T) (args []string, remove func()) {
	name := fmt.Sprintf("fnic%d", os.Getpid()%100000)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP, Queues: 1, NonPersist: true, Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS}
	if err := h.LinkAdd(tap); err != nil {
		ktest.Missing(t, fmt.Sprintf("a tap with queues cannot be made here: %v", err))
	}
	req, err := unix.NewIfreq("")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_DETACH_QUEUE)
	if err := unix.IoctlIfreq(int(tap.Fds[0].Fd()), unix.TUNSETQUEUE, req); err != nil {
		t.Fatal(err)
	}
	return []string{"-netdev", "tap,id=t0,ifname=" + name + ",script=no,downscript=no,queues=4",
			"-device", "virtio-net-pci,netdev=t0,mq=on,vectors=10,romfile="}, func() {
			if err := tap.Fds[0].Close(); err != nil {
				t.Error(err)
			}
		}
}
