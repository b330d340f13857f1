package xskwhy

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Finding is one reason, with what to change.
type Finding struct {
	Why   string `json:"why"` // one of the constants below
	Words string `json:"words"`
	Turn  string `json:"turn"`
}

// Reasons.
const (
	NotRead    = "not-read"       // nobody takes packets out of the receive ring
	NotFilled  = "not-filled"     // nobody puts frames into the fill ring
	FillEmpty  = "fill-empty"     // the fill ring runs empty from time to time
	TooSlow    = "too-slow"       // the owner works all the time, and that is not enough
	Sleeps     = "sleeps"         // the owner sleeps while packets wait
	WokenLate  = "woken-late"     // the owner waits for a CPU
	WrongQueue = "wrong-queue"    // packets are of another queue than the socket's
	Invalid    = "invalid"        // descriptors mean nothing
	NotKicked  = "not-kicked"     // what is to be sent waits for a system call
	NotReaped  = "not-reaped"     // nobody takes back frames that were sent
	Softirq    = "softirq"        // the CPU that feeds it has no time
	Nothing    = "nothing-comes"  // no packet was redirected
	Fine       = "nothing-is-bad" // nothing was lost or late
)

// Lost are losses while it was watched.
type Lost struct {
	NoFrame uint64 `json:"fill_ring_empty"`
	Full    uint64 `json:"rx_ring_full"`
	Dropped uint64 `json:"rx_dropped"` // no frame, or larger than one
	Invalid uint64 `json:"invalid_descs"`
}

// Lost gives what was lost since the first look.
func (s *Seen) Lost() Lost {
	a, b := &s.First, &s.Last
	return Lost{b.Fill.Empty - a.Fill.Empty, b.Full - a.Full, b.Dropped - a.Dropped, b.Fill.Invalid - a.Fill.Invalid + b.TX.Invalid - a.TX.Invalid}
}

// Received, Read, Filled and Sent count entries of rings.
func (s *Seen) Received() uint32 { return s.Last.RX.Producer - s.First.RX.Producer }
func (s *Seen) Read() uint32     { return s.Last.RX.Consumer - s.First.RX.Consumer }
func (s *Seen) Filled() uint32   { return s.Last.Fill.Producer - s.First.Fill.Producer }
func (s *Seen) Sent() uint32     { return s.Last.TX.Consumer - s.First.TX.Consumer }

// share is the owner's part of a CPU.
func (s *Seen) share() float64 { return part(s.CPU, s.For) }

func part(d, of time.Duration) float64 {
	if of <= 0 {
		return 0
	}
	return float64(d) / float64(of)
}

// redirected counts by result, and the CPUs it happened on.
func (s *Seen) redirected() (arrived uint64, failed map[int]uint64, cpus []int) {
	failed = map[int]uint64{}
	for _, r := range s.Redirects {
		if r.Errno == 0 {
			arrived += r.N
		} else {
			failed[r.Errno] += r.N
		}
		if !slices.Contains(cpus, r.CPU) {
			cpus = append(cpus, r.CPU)
		}
	}
	slices.Sort(cpus)
	return arrived, failed, cpus
}

// late is how long packets may lie unread before it is worth a word, busy from which share of a CPU on somebody has no time.
const (
	late = 5 * time.Millisecond
	busy = .8
)

// Judge says why packets were lost or late, the weightiest first; the last resort is that nothing is bad.
func (s *Seen) Judge() (out []Finding) {
	say := func(why, turn, format string, args ...any) {
		out = append(out, Finding{why, fmt.Sprintf(format, args...), turn})
	}
	lost, who := s.Lost(), fmt.Sprintf("%s[%d]", s.Comm, s.PID)
	arrived, failed, cpus := s.redirected()
	losing := lost.NoFrame > 0 || lost.Full > 0 || lost.Dropped > 0
	// A packet that came in the last moment is none that nobody reads.
	unread := s.Last.RX.Used() > 0 && s.Read() == 0 && (s.First.RX.Used() > 0 || s.Unread > max(late, s.For/4))
	switch {
	case unread:
		say(NotRead, "have it wait for POLLIN on descriptor "+fmt.Sprint(s.Descriptor)+" and take what is in the receive ring",
			"%s takes no packets: %d of %d entries of its receive ring are used, and for %v it took none", who, s.Last.RX.Used(), s.Last.RX.Size, s.For.Round(time.Millisecond))
	case losing && s.Filled() == 0 && s.Last.Fill.Used() == 0:
		say(NotFilled, "give each frame back through the fill ring when its packet was handled",
			"%s gives no frames to the kernel: its fill ring is empty, and packets find no frame (%d times)", who, max(lost.NoFrame, lost.Dropped))
	default:
		s.slow(who, lost, say)
	}
	if n := failed[int(syscall.EINVAL)]; n > 0 && n >= arrived {
		say(WrongQueue, "bind a socket to each queue (-q all), or have the device use one: ethtool -L "+s.First.Device+" combined 1",
			"%d redirects on %s were refused (EINVAL): the packets are of another queue than the socket at that place of the map, which is bound to queue %d", n, s.First.Device, s.First.Queue)
	}
	if lost.Invalid > 0 {
		say(Invalid, "check addresses and lengths that are put into the rings: within the UMEM, within a frame", "%d descriptors of %s meant nothing and were passed over", lost.Invalid, who)
	}
	if s.Stuck > 0 && s.Stuck >= s.Samples/10 && s.Stuck > 2 {
		say(NotKicked, "call sendto() when XDP_RING_NEED_WAKEUP is set, after each batch", "the transmit ring has %d entries that the kernel does not look at until %s asks it to: so in %d of %d looks", s.Last.TX.Used(), who, s.Stuck, s.Samples)
	}
	if c := &s.Last.Completion; c.Size > 0 && c.Used() == c.Size && s.Last.TX.Used() > 0 {
		say(NotReaped, "take frames out of the completion ring before more are sent", "the completion ring is full: nothing is sent until %s takes its %d frames back", who, c.Size)
	}
	for _, c := range cpus {
		if c < len(s.NetRX) && part(s.NetRX[c], s.For) > busy {
			say(Softirq, "spread the queues over CPUs (fathom nic "+s.First.Device+"), and keep the owner off this one: taskset", "CPU %d, which feeds it, spent %.0f %% of its time in NET_RX", c, 100*part(s.NetRX[c], s.For))
		}
	}
	if len(out) > 0 {
		return out
	}
	if s.Received() == 0 && arrived == 0 && s.Sent() == 0 {
		say(Nothing, "see which program is on the device and what it takes: fathom bypass status; ask the kernel where packets go: fathom packet --dev "+s.First.Device,
			"nothing was redirected into it on %s", s.First.Device)
		return out
	}
	say(Fine, "", "nothing was lost; packets lay unread for %v at most", s.Unread.Round(time.Millisecond))
	return out
}

// slow judges an owner that reads.
func (s *Seen) slow(who string, lost Lost, say func(why, turn, format string, args ...any)) {
	worst := time.Duration(s.Owner.Worst)
	full := lost.Full > 0
	what := ""
	switch {
	case full:
		what = fmt.Sprintf("%d packets found the receive ring full", lost.Full)
	case s.Unread >= late:
		what = "packets are late, none is lost"
	}
	switch {
	case what == "":
	case s.share() >= busy:
		say(TooSlow, "handle packets in batches, take fewer (--filter), or use more queues with a thread each", "%s: %s runs %.0f %% of the time and takes %d of %d", what, who, 100*s.share(), s.Read(), s.Received())
	case worst >= s.Unread/2 && worst >= late:
		say(WokenLate, fmt.Sprintf("pin it to a CPU of its own (taskset -p -c N %d), or raise its priority (chrt -f -p 1 %d)", s.PID, s.PID),
			"%s: packets wake %s, which then waits for a CPU, up to %v behind %s", what, who, worst.Round(time.Microsecond), s.Owner.Behind)
	default:
		how := "sleeps by itself while packets wait"
		if s.Owner.Wake.Count > 0 {
			how = "leaves packets where they are though they wake it, as one does who sleeps for a time"
		}
		say(Sleeps, "have it wait in poll() or epoll for descriptor "+fmt.Sprint(s.Descriptor)+" instead of sleeping for a time; or spin, or busy poll",
			"%s: %s %s, up to %v; packets woke it %d times, other things %d times", what, who, how, s.Unread.Round(time.Millisecond), s.Owner.Wake.Count, s.Owner.Other)
	}
	if !full && (lost.NoFrame > 0 || lost.Dropped > 0) {
		say(FillEmpty, fmt.Sprintf("more frames (--frames %d) and a larger fill ring, and frames given back before their packets are handled", 2*max(s.Last.Fill.Size, 1024)),
			"%d packets found no frame: the fill ring of %d entries ran empty, so in %d of %d looks", max(lost.NoFrame, lost.Dropped), s.Last.Fill.Size, s.NoFrame, s.Samples)
	}
}
