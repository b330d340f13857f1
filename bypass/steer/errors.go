package steer

import (
	"errors"

	"golang.org/x/sys/unix"
)

// meaning says in words what an error of attaching means.
func meaning(err error) string {
	for _, m := range []struct {
		errno error
		text  string
	}{
		{unix.EPERM, "it takes CAP_NET_ADMIN and CAP_BPF"},
		{unix.EOPNOTSUPP, "the driver runs no XDP programs itself; generic mode works everywhere"},
		{unix.ERANGE, "the device's MTU is too large for the driver's XDP without packets of several buffers"},
		{unix.EINVAL, "the driver refuses the program for this device as it is: its MTU, its offloads (LRO), or a mode that another program has"},
		{unix.ENODEV, "the device is gone"},
		{unix.ENOSPC, "the driver has no more queues, which XDP wants"},
	} {
		if errors.Is(err, m.errno) {
			return ": " + m.text
		}
	}
	return ""
}
