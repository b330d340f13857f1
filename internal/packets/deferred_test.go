package packets

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestDeferred: what a process on one CPU reads of what was sent on another has arrived, also where the kernel frees it only
// when the CPU that it came from next receives something (skb_attempt_defer_free, which UDP uses since Linux 6.18).
func TestDeferred(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	if !cpus.IsSet(0) || !cpus.IsSet(1) {
		t.Skip("needs the CPUs 0 and 1")
	}
	p := newPair(t)
	const n = 5
	sink := -1
	err := p.B.Do(func() (err error) {
		if sink, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.SetsockoptTimeval(sink, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
			return err
		}
		return unix.Bind(sink, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 77, 0, 2}})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sink)
	read := make(chan error, 1)
	rec, level := watch(t, Options{Netns: []string{ref(p.A.NS), ref(p.B.NS)}, Filter: "udp port 9", Plain: true}, func() {
		go func() {
			read <- p.B.Do(func() error { // on a thread of its own, which ends
				if err := pin(1); err != nil {
					return err
				}
				for range n {
					if _, _, err := unix.Recvfrom(sink, make([]byte, 64), 0); err != nil {
						return err
					}
				}
				return nil
			})
		}()
		err := p.A.Do(func() error {
			if err := pin(0); err != nil {
				return err
			}
			out, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(out)
			for range n {
				if err := unix.Sendto(out, make([]byte, 20), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 77, 0, 2}}); err != nil {
					return err
				}
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := <-read; err != nil {
			t.Error(err)
		}
	})
	for _, v := range packet.Explain(rec) {
		if v.Class == packet.ClassDelivered && v.Sent == n && v.Delivered == n {
			return
		}
		t.Errorf("%s: %s: %d sent, %d delivered, %d unknown: %s", level, v.Class, v.Sent, v.Delivered, v.Unknown, v.Cause)
	}
}

func pin(cpu int) error {
	var s unix.CPUSet
	s.Set(cpu)
	return unix.SchedSetaffinity(0, &s)
}
