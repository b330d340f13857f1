// Package xskwhy says why packets that XDP redirects into AF_XDP sockets are lost or late: it looks at the sockets' rings again and again while
// programs count what happens to them (answers/nic), and judges what it saw. It changes nothing; a socket is held only while its
// owner lives.
package xskwhy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/probe"
)

// Options say which sockets are watched.
type Options struct {
	CPUs   int    // that are possible
	PID    int    // of this process; 0 is any
	Device string // on this device; "" is any
	NetNS  uint32 // in this namespace, by its inode; 0 is any
	Proc   string // "/proc"
}

// every is how often rings are looked at: what lasts less is seen by the kernel's counters only.
const every = 2 * time.Millisecond

// Seen is what happened to a socket.
type Seen struct {
	PID         int
	Comm        string
	Descriptor  int
	For         time.Duration
	Gone        bool // its process ended
	First, Last nic.XSKState
	Samples     int
	NoFrame     int // of those, in how many the fill ring was empty,
	Full        int // the receive ring full,
	Stuck       int // entries in the transmit ring that the kernel does not look at until it is asked to
	// Unread is the longest time that packets lay in the receive ring and none was taken; AllUnread all such times together.
	Unread, AllUnread time.Duration
	CPU               time.Duration // that its process had
	Owner             nic.XSKOwner
	Redirects         []nic.XSKRedirect // on its device
	NetRX             []time.Duration   // by CPU

	unreadSince time.Time
	before      nic.XSKState
}

// watched is a socket with its descriptor.
type watched struct {
	*held.Socket
	seen Seen
	cpu  time.Duration // of the process, at the beginning
}

// Watch watches until the context ends, and gives what was seen of each socket, sorted by device and queue. missing is what was not seen.
func Watch(ctx context.Context, w *probe.World, o Options) (out []Seen, missing []string, err error) {
	socks, missing := held.Sockets(o.Proc, o.PID)
	defer func() {
		for _, s := range socks {
			s.Close()
		}
	}()
	var owners []int
	for _, s := range socks {
		if !slices.Contains(owners, s.PID) {
			owners = append(owners, s.PID)
		}
	}
	if len(socks) == 0 {
		return nil, missing, nil
	}
	x, err := nic.OpenXSK(w, nic.XSKOptions{CPUs: o.CPUs, Self: os.Getpid(), Ask: unix.SYS_FCNTL, Owners: owners})
	if err != nil {
		return nil, missing, err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	var ws []*watched
	states, err := look(x, socks)
	if err != nil {
		return nil, missing, err
	}
	for _, s := range socks {
		st, ok := states[s.FD]
		if !ok || o.Device != "" && st.Device != o.Device || o.NetNS != 0 && st.NetNS != o.NetNS {
			s.Close()
			continue
		}
		ws = append(ws, &watched{Socket: s, cpu: cpuTime(o.Proc, s.PID), seen: Seen{PID: s.PID, Comm: s.Comm, Descriptor: s.Theirs, First: st, Last: st, before: st}})
	}
	if len(ws) == 0 {
		return nil, missing, nil
	}
	begin := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case <-tick.C:
		}
		if err := sample(x, ws, o.Proc); err != nil {
			return nil, missing, err
		}
	}
	res, err := x.Result()
	if err != nil {
		return nil, missing, err
	}
	for _, m := range res.Missing {
		missing = append(missing, "tracepoint "+m)
	}
	for _, s := range ws {
		s.seen.For = time.Since(begin)
		s.seen.finish(res)
		out = append(out, s.seen)
	}
	slices.SortFunc(out, func(a, b Seen) int {
		return strings.Compare(a.place(), b.place())
	})
	return out, missing, nil
}

// look asks the kernel for all sockets. Those that could not be read are not there.
func look(x *nic.XSKWatch, socks []*held.Socket) (map[int]nic.XSKState, error) {
	for _, s := range socks {
		if s.FD >= 0 {
			_, _ = unix.FcntlInt(uintptr(s.FD), unix.F_GETFD, 0) // the program at its entry looks
		}
	}
	return x.Looked()
}

// sample looks at all sockets once, and gives up those whose process has ended.
func sample(x *nic.XSKWatch, ws []*watched, proc string) error {
	var socks []*held.Socket
	for _, w := range ws {
		if w.FD >= 0 && w.Gone() {
			w.seen.Gone = true
			w.Close()
		}
		if w.FD >= 0 {
			if t := cpuTime(proc, w.PID); t > 0 {
				w.seen.CPU = t - w.cpu
			}
			socks = append(socks, w.Socket)
		}
	}
	states, err := look(x, socks)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, w := range ws {
		if st, ok := states[w.FD]; ok && w.FD >= 0 {
			w.seen.add(st, now)
		}
	}
	return nil
}

// add takes in how a socket is now.
func (s *Seen) add(st nic.XSKState, now time.Time) {
	s.Samples++
	if st.Fill.Size > 0 && st.Fill.Used() == 0 {
		s.NoFrame++
	}
	if st.RX.Size > 0 && st.RX.Used() == st.RX.Size {
		s.Full++
	}
	if st.TX.Used() > 0 && st.TX.NeedWakeup && st.TX.Consumer == s.before.TX.Consumer {
		s.Stuck++
	}
	switch {
	case st.RX.Used() == 0:
		s.unreadSince = time.Time{}
	case s.unreadSince.IsZero() || st.RX.Consumer != s.before.RX.Consumer:
		s.unreadSince = now
	default:
		s.Unread = max(s.Unread, now.Sub(s.unreadSince))
		s.AllUnread += every
	}
	s.before, s.Last = st, st
}

// finish adds what the programs counted.
func (s *Seen) finish(r *nic.XSKResult) {
	for _, o := range r.Owners {
		if o.PID == s.PID {
			s.Owner = o
		}
	}
	for _, d := range r.Redirects {
		if d.Index == s.First.Index && d.NetNS == s.First.NetNS {
			s.Redirects = append(s.Redirects, d)
		}
	}
	s.NetRX = r.NetRX
	s.AllUnread = min(s.AllUnread, s.For)
}

func (s *Seen) place() string {
	return strings.Join([]string{s.First.Device, strconv.Itoa(1<<20 + s.First.Queue), strconv.Itoa(1<<30 + s.PID), strconv.Itoa(1<<20 + s.Descriptor)}, " ")
}

// cpuTime is what a process has run so far, in user space and in the kernel (proc_pid_stat(5)); 0 if it has ended.
func cpuTime(proc string, pid int) time.Duration {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	const utime, perSecond = 11, 100 // after the name; USER_HZ
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < utime+2 {
		return 0
	}
	user, _ := strconv.Atoi(f[utime])
	kernel, _ := strconv.Atoi(f[utime+1])
	return time.Duration(user+kernel) * time.Second / perSecond
}
