package packets

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
)

// releaser makes CPUs free the packets whose end they put off. What a process reads on one CPU is given back to the CPU that it
// came from (skb_attempt_defer_free in net/core/skbuff.c; TCP since Linux 5.19, UDP since 6.18), which frees it when it next
// receives something: on a machine where nothing else comes, never. Until then nobody tells that the packet has arrived.
type releaser struct {
	ns    netns.NS
	inode uint64
	fd    int
}

// newReleaser makes a namespace with nothing in it but a socket that sends to itself. It belongs to the caller, who must
// close it.
func newReleaser() (*releaser, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	r := &releaser{ns: ns, fd: -1}
	if err := errors.Join(r.identify(), ns.Do(r.open)); err != nil {
		r.close()
		return nil, fmt.Errorf("make a socket that receives: %w", err)
	}
	return r, nil
}

func (r *releaser) identify() error {
	var st unix.Stat_t
	err := unix.Fstat(r.ns.FD(), &st)
	r.inode = st.Ino
	return err
}

// open sets the loopback up, and binds and connects a socket to one address.
func (r *releaser) open() (err error) {
	if r.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(r.fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	if err := unix.Bind(r.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	self, err := unix.Getsockname(r.fd)
	if err != nil {
		return err
	}
	return unix.Connect(r.fd, self)
}

// release has every CPU that this process may run on receive a packet.
func (r *releaser) release(cpus int) error {
	return r.ns.Do(func() error { // on a thread of its own, which ends
		for cpu := range cpus {
			var only unix.CPUSet
			only.Set(cpu)
			if unix.SchedSetaffinity(0, &only) != nil {
				continue // it is offline, or not ours
			}
			if _, err := unix.Write(r.fd, []byte{0}); err != nil {
				return fmt.Errorf("send to the loopback: %w", err)
			}
		}
		return nil
	})
}

func (r *releaser) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
	r.ns.Close()
}
