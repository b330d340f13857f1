package topology

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/topology/spec"
)

// forwardDelay is what the bridge waits in each of listening and learning if nothing is said: the least that 802.1D allows.
const forwardDelay = 2 * time.Second

// setSTP turns on a bridge's spanning tree, by a request to the namespace this thread is in: netlink.Bridge has no such
// field (IFLA_BR_STP_STATE, if_link.h).
func setSTP(index int, delay time.Duration) error {
	if delay == 0 {
		delay = forwardDelay
	}
	u32 := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, u32(uint32(delay/(10*time.Millisecond))))
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, u32(1))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// tunTap makes a device that stays when our descriptor is closed, in the namespace this thread is in. With more than one
// queue it is multi-queue: who uses it opens as many descriptors.
func tunTap(d spec.Device) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(d.Name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_NO_PI | unix.IFF_TAP)
	if d.Kind == "tun" {
		flags = unix.IFF_NO_PI | unix.IFF_TUN
	}
	if d.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}

// waitRunning waits until the kernel knows that an interface has a carrier: IPv6 sends nothing before.
func waitRunning(h *netlink.Handle, dev string) error {
	for deadline := time.Now().Add(settle); ; time.Sleep(time.Millisecond) {
		l, err := h.LinkByName(dev)
		switch {
		case err != nil:
			return fmt.Errorf("find %s: %w", dev, err)
		case l.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("wait for %s: it is %v after %v", dev, l.Attrs().OperState, settle)
		}
	}
}
