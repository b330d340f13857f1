package xsk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is a system call of setting up a queue.
type Call struct {
	Text string // as strace writes it: "setsockopt(7, SOL_XDP, XDP_RX_RING, 2048)"
	Why  string // what it is for
	Err  error
}

// note tells Options.Trace of a call, and gives its error.
func (q *Queue) note(err error, why, format string, args ...any) error {
	if q.opts.Trace != nil {
		q.opts.Trace(Call{fmt.Sprintf(format, args...), why, err})
	}
	return err
}

// rings are the options that make rings, with their names.
var rings = []struct {
	opt       int
	name, why string
	size      func(*Options) int
	not       func(*Options) bool
}{
	{unix.XDP_UMEM_FILL_RING, "XDP_UMEM_FILL_RING", "entries of the ring by which frames go to the kernel", func(o *Options) int { return o.Fill }, nil},
	{unix.XDP_UMEM_COMPLETION_RING, "XDP_UMEM_COMPLETION_RING", "entries of the ring by which frames that were sent come back", func(o *Options) int { return o.Completion }, nil},
	{unix.XDP_RX_RING, "XDP_RX_RING", "entries of the ring by which packets arrive", func(o *Options) int { return o.RX }, func(o *Options) bool { return o.NoRX }},
	{unix.XDP_TX_RING, "XDP_TX_RING", "entries of the ring by which packets are sent", func(o *Options) int { return o.TX }, func(o *Options) bool { return o.NoTX }},
}

// bindFlags writes the flags of struct sockaddr_xdp.
func bindFlags(flags uint16) string {
	s := ""
	for _, f := range []struct {
		bit  uint16
		name string
	}{{unix.XDP_SHARED_UMEM, "XDP_SHARED_UMEM"}, {unix.XDP_COPY, "XDP_COPY"}, {unix.XDP_ZEROCOPY, "XDP_ZEROCOPY"}, {unix.XDP_USE_NEED_WAKEUP, "XDP_USE_NEED_WAKEUP"}, {unix.XDP_USE_SG, "XDP_USE_SG"}} {
		if flags&f.bit != 0 {
			s += "|" + f.name
		}
	}
	if s == "" {
		return "0"
	}
	return s[1:]
}
