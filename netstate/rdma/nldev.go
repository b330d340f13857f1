package rdma

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// Requests of the kernel's RDMA devices (include/uapi/rdma/rdma_netlink.h). A type of message is the client, shifted by ten, and the command.
const (
	clientDevices = 5 << 10 // RDMA_NL_NLDEV
	cmdGet        = clientDevices | 1
	cmdUsed       = clientDevices | 9  // RDMA_NLDEV_CMD_RES_GET
	cmdCharDev    = clientDevices | 15 // RDMA_NLDEV_CMD_GET_CHARDEV, Linux 5.3
)

// Attributes of answers: enum rdma_nldev_attr.
const (
	attrIndex    = 1  // u32
	attrName     = 2  // string
	attrSummary  = 15 // nested: entries
	attrEntry    = 16 // nested
	attrKind     = 17 // string
	attrCount    = 18 // u64
	attrCharType = 69 // string: "uverbs"
	attrCharName = 70 // string: "uverbs0"
	attrCharABI  = 71 // u64
	attrDriver   = 73 // u32, whatever the header says: enum rdma_driver_id
)

// driverNames are enum rdma_driver_id (include/uapi/rdma/ib_user_ioctl_verbs.h).
var driverNames = [...]string{"unknown", "mlx5", "mlx4", "cxgb3", "cxgb4", "mthca", "bnxt_re", "ocrdma", "nes", "irdma", "vmw_pvrdma", "qedr", "hns", "usnic", "rxe",
	"hfi1", "qib", "efa", "siw", "erdma", "mana", "ionic"}

func driverName(id uint32) string {
	if int(id) < len(driverNames) {
		return driverNames[id]
	}
	return fmt.Sprintf("driver %d", id)
}

// timeout bounds how long an answer is waited for: the kernel answers at once.
const timeout = 5 * time.Second

// ask sends a request and gives the answers' attributes.
func ask(c *netlink.Conn, cmd netlink.HeaderType, flags netlink.HeaderFlags, body []byte) (out []nlattr.Attrs, err error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	msgs, err := c.Execute(netlink.Message{Header: netlink.Header{Type: cmd, Flags: netlink.Request | flags}, Data: body})
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		a, err := nlattr.Parse(m.Data)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// dial opens a socket to the kernel's RDMA part. Where that is not loaded there is no such family: no error, and no socket.
func dial() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_RDMA, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	return c, err
}

// details asks for what sysfs does not say of devices.
func details(devs []Device) error {
	c, err := dial()
	if c == nil || err != nil {
		return err
	}
	defer c.Close()
	all, err := ask(c, cmdGet, netlink.Dump, nil)
	if err != nil {
		return fmt.Errorf("list RDMA devices: %w", err)
	}
	used, err := ask(c, cmdUsed, netlink.Dump, nil)
	if err != nil {
		err = fmt.Errorf("ask what RDMA devices have in use: %w", err)
	}
	for i := range devs {
		d := &devs[i]
		for _, a := range all {
			if d.Name == a.String(attrName) {
				err = errors.Join(err, charDev(c, d, a.U32(attrIndex)))
			}
		}
		for _, a := range used {
			if d.Name == a.String(attrName) {
				d.Used = summary(a)
			}
		}
	}
	return err
}

// charDev asks by which file programs reach a device. Without ib_uverbs there is none.
func charDev(c *netlink.Conn, d *Device, index uint32) error {
	body := nlattr.Append(nlattr.AppendU32(nil, attrIndex, index), attrCharType, []byte("uverbs\x00"))
	all, err := ask(c, cmdCharDev, 0, body)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for the verbs of RDMA device %s: %w", d.Name, err)
	}
	for _, a := range all {
		d.Verbs, d.ABI = a.String(attrCharName), int(a.U64(attrCharABI))
		if a.Has(attrDriver) {
			d.Driver = driverName(a.U32(attrDriver))
		}
	}
	return nil
}

// summary decodes the counts of an answer.
func summary(a nlattr.Attrs) (out []Used) {
	for _, e := range a.Nested(attrSummary) {
		entry, err := nlattr.Parse(e.Data)
		if e.Type != attrEntry || err != nil {
			continue
		}
		out = append(out, Used{entry.String(attrKind), entry.U64(attrCount)})
	}
	return out
}
