// Package packets runs `fathom packet`: it sees packets (internal/packets/capture), reads the state of the namespaces they
// pass before, at the first loss of each kind, and at the end (netstate/live), and has all of it explained (answers/packet).
package packets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/packets/capture"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/changes"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// Options say which packets to follow and when to end.
type Options struct {
	Filter string   // as tcpdump takes it
	Netns  []string // names, process numbers or paths; none is all
	Devs   []string
	Mark   *uint32
	PIDs   []uint32
	Comm   string
	Cgroup uint64 // number of the sender's cgroup; 0 is any
	Terms  []capture.Term
	Plain  bool   // tracepoints alone
	Losses bool   // only what is lost, of all packets
	Within bool   // the namespaces of Netns are all there is: packets that leave them are followed no further
	Count  uint64 // end after so many packets; 0 is no limit
	For    time.Duration
	// Ready is called when packets are seen, with the means. Unless only tracepoints or losses are asked for, More is called
	// once what more there is has been added, with all means, and with why there are none; it may be nil.
	Ready func(level string, missing []string)
	More  func(level string, missing []string)
	// Trail is called with the way of each packet of IP once it is no longer followed; may be nil.
	Trail func(*packet.Trail)
	// Lost is called at the first loss of each kind, as it happens; may be nil.
	Lost      func(*packet.Verdict)
	Interrupt <-chan os.Signal
}

// Run follows packets until it is interrupted, has seen enough, or its time is over, and gives what it saw.
func Run(ctx context.Context, o Options) (*packet.Recording, error) {
	r := &run{o: o, readers: map[uint64]*netlive.Reader{}, read: map[uint64]time.Time{}, active: map[uint64]bool{},
		rec: &packet.Recording{Before: states{}, At: states{}, After: states{}, Errnos: map[int32]string{}, Losses: o.Losses}}
	defer r.close()
	if err := r.open(); err != nil {
		return nil, err
	}
	if o.Ready != nil {
		o.Ready(r.rec.Level, r.cap.Missing())
	}
	r.watch(ctx)
	if err := r.follow(ctx); err != nil {
		return nil, err
	}
	return r.finish()
}

// Plan says what Run would attach to: at once, and, where functions can be watched, a little later. missing is what this kernel
// has not got.
func Plan(o Options) (targets, functions, missing []string, err error) {
	r := &run{o: o, readers: map[uint64]*netlive.Reader{}, read: map[uint64]time.Time{}, active: map[uint64]bool{},
		rec: &packet.Recording{Before: states{}}}
	defer r.close()
	only, err := r.machine()
	if err != nil {
		return nil, nil, nil, err
	}
	return capture.Plan(r.world, r.wants(only))
}

type states = map[uint64]*netstate.State

// run is one run.
type run struct {
	o       Options
	rec     *packet.Recording
	live    *live.Live
	world   *probe.World
	users   *usersym.Resolver
	cap     *capture.Capture
	names   *names
	track   *packet.Tracker
	readers map[uint64]*netlive.Reader
	read    map[uint64]time.Time // when the state of a namespace was read last
	active  map[uint64]bool      // namespaces that packets were seen in
	more    chan stepping        // nil once that is known
	enough  func()               // says that no more is wanted
	cpus    int
	own     uint64 // namespace of a releaser, whose packets are ours
}

func (r *run) close() {
	if r.more != nil {
		r.enough()
		<-r.more // it uses what is closed here
	}
	for _, x := range r.readers {
		if x != nil {
			x.Close()
		}
	}
	if r.cap != nil {
		r.cap.Close()
	}
	if r.world != nil {
		r.world.Close()
		r.users.Close()
	}
}

// machine opens the machine, and gives the namespaces asked for.
func (r *run) machine() (only []uint32, err error) {
	if r.live, err = live.Open(live.Options{}); err != nil {
		return nil, err
	}
	r.users = usersym.New(usersym.Options{})
	r.world = probe.NewWorld(r.live, r.users, 0)
	r.names = newNames(r.live)
	if r.cpus, err = r.live.NumCPU(); err != nil {
		return nil, err
	}
	return r.spaces()
}

func (r *run) open() error {
	only, err := r.machine()
	if err != nil {
		return err
	}
	want, keep := wanted(&r.o, only)
	r.track = packet.NewTracker(r.names, want, keep)
	if r.o.Within {
		r.track.Within(only)
	}
	if r.o.Trail != nil {
		r.track.Trails(r.o.Trail)
	}
	r.rec.Kernel, _ = r.live.Release()
	r.rec.BootToReal = r.live.Clocks().BootToReal
	if r.cap, err = capture.Open(r.world, r.wants(only)); err != nil {
		return err
	}
	r.rec.Level = "tracepoints"
	r.rec.Begun = bootTime()
	return nil
}

// bootTime is the clock that events have their time from.
func bootTime() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // it is always there
	return uint64(ts.Nano())
}

// wants are the options for what sees packets.
func (r *run) wants(only []uint32) capture.Options {
	return capture.Options{Filter: r.o.Filter, Netns: only, Devs: r.o.Devs, Mark: r.o.Mark, PIDs: r.o.PIDs,
		Comm: r.o.Comm, Cgroup: r.o.Cgroup, Terms: r.o.Terms, Losses: r.o.Losses, CPUs: r.cpus, Functions: r.functions()}
}

// stepping is what became of the attempt to watch functions.
type stepping struct {
	n    int
	took time.Duration
	err  error
}

// watch begins to watch functions. That takes as long as all that was done before, and packets are seen meanwhile.
func (r *run) watch(ctx context.Context) {
	r.more = make(chan stepping, 1)
	ctx, cancel := context.WithCancel(ctx)
	r.enough = cancel
	go func() {
		n, took, err := r.cap.Functions(ctx, r.world)
		r.more <- stepping{n, took, err}
	}()
}

// level takes what watch came to, once.
func (r *run) level(w stepping) {
	r.more = nil
	var missing []string
	if w.err != nil {
		missing = []string{w.err.Error()}
	}
	if w.n > 0 {
		r.rec.Level = fmt.Sprintf("tracepoints and %d functions (kprobe.multi)", w.n)
	}
	if r.o.More != nil && r.functions() != nil {
		level := r.rec.Level
		if w.n > 0 {
			level += fmt.Sprintf(", attached in %.3f s", w.took.Seconds())
		}
		r.o.More(level, missing)
	}
}

// functions are what is watched beside the tracepoints.
func (r *run) functions() []string {
	if r.o.Losses || r.o.Plain {
		return nil
	}
	return packet.Landmarks()
}

// spaces opens the namespaces asked for, and all others, and reads what they have counted so far.
func (r *run) spaces() (only []uint32, err error) {
	for _, name := range r.o.Netns {
		x, err := netlive.Open(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
		}
		only = append(only, uint32(x.NS().Inode))
		r.add(x)
	}
	if r.o.Within {
		return only, r.devices()
	}
	for _, x := range netlive.OpenAll(most) {
		if x.NS().Name == "init" {
			r.rec.Init = x.NS().Inode
		}
		r.add(x)
	}
	return only, r.devices()
}

// devices looks for the devices asked for.
func (r *run) devices() error {
	for _, d := range r.o.Devs {
		if !r.hasDevice(d) {
			return fmt.Errorf("%w: device %s, in any network namespace", ErrAbsent, d)
		}
	}
	return nil
}

// ErrAbsent says that a namespace or device that was asked for is not there.
var ErrAbsent = errors.New("not there")

func (r *run) hasDevice(name string) bool {
	for _, s := range r.rec.Before {
		if _, ok := s.LinkByName(name); ok {
			return true
		}
	}
	return false
}

// most is how many namespaces are watched: each costs descriptors and a few milliseconds.
const most = 512

// counted is what is read of every namespace at the beginning and at the end: what may have moved.
const counted = netlive.Counters | netlive.Sockets | netlive.Links

// counted is that, with the addresses by which other hosts know this one, if they are to.
func (r *run) counted() netlive.Parts {
	if r.o.Trail != nil {
		return counted | netlive.Addrs
	}
	return counted
}

// whole is what is read of a namespace in which something was lost.
const whole = netlive.All&^netlive.Sysctls | netlive.Deciding

// reader gives the reader of a namespace, nil if it cannot be opened. One that came meanwhile has counted nothing before.
func (r *run) reader(inode uint64) *netlive.Reader {
	if x, tried := r.readers[inode]; tried || len(r.readers) >= most {
		return x
	}
	r.readers[inode] = nil
	x, err := netlive.OpenInode(inode)
	if err != nil {
		return nil
	}
	delete(r.readers, inode)
	return r.add(x)
}

func (r *run) add(x *netlive.Reader) *netlive.Reader {
	inode := x.NS().Inode
	if old := r.readers[inode]; old != nil {
		x.Close()
		return old
	}
	r.readers[inode] = x
	r.rec.Before[inode] = x.Read(r.counted())
	return x
}

// again is how long after the state of a namespace was read it is not read again for another loss.
const again = 100 * time.Millisecond

// look reads the state of the namespace in which a loss was, at that moment: what is to blame may be gone later.
func (r *run) look(l *packet.Loss) {
	if strings.HasPrefix(l.Reason, "BPF_CGROUP_") {
		r.cgroups(l)
	}
	inode := uint64(l.Netns)
	x := r.reader(inode)
	if x == nil || time.Since(r.read[inode]) < again {
		return
	}
	r.read[inode] = time.Now()
	r.rec.At[inode] = x.Read(whole)
}

// cgroups reads what programs there are on cgroups, once, and in which cgroup a loss's sender is.
func (r *run) cgroups(l *packet.Loss) {
	if r.rec.CgroupProgs == nil {
		r.rec.CgroupProgs = cgroupProgs()
	}
	if f := l.Flow(); f != nil && f.Sender.PID != 0 {
		if p, ok := changes.ReadProcess(int(f.Sender.PID)); ok {
			f.Cgroup = p.Cgroup
		}
	}
}

// slice is how long one wait for events is: interrupts and the end are looked at as often.
const slice = 20 * time.Millisecond

func (r *run) follow(ctx context.Context) error {
	var end time.Time
	if r.o.For > 0 {
		end = time.Now().Add(r.o.For)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.o.Interrupt:
			return nil
		case w := <-r.more:
			r.level(w)
		default:
		}
		now := time.Now()
		if !end.IsZero() && !now.Before(end) || r.o.Count > 0 && r.track.Packets() >= r.o.Count {
			return nil
		}
		if err := r.drain(now.Add(slice)); err != nil {
			return err
		}
	}
}

// drain takes the events that come until a moment.
func (r *run) drain(until time.Time) error {
	for {
		e, ok, err := r.cap.Next(until)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if r.own != 0 && uint64(e.Netns) == r.own {
			continue
		}
		if r.track.Foreign(&e) {
			continue
		}
		if e.Kind == packet.Refused {
			r.rec.Errnos[e.Reason] = unix.ErrnoName(unix.Errno(e.Reason))
			r.look(&packet.Loss{Netns: e.Netns})
		}
		if e.Kind == packet.XDPError && e.Reason < 0 {
			r.rec.Errnos[-e.Reason] = unix.ErrnoName(unix.Errno(-e.Reason))
		}
		if e.Netns != 0 && !r.active[uint64(e.Netns)] {
			r.active[uint64(e.Netns)] = true
			r.reader(uint64(e.Netns))
		}
		if l := r.track.Add(e); l != nil {
			r.look(l)
			if r.o.Lost != nil {
				r.fill()
				r.o.Lost(r.rec.Now(l))
			}
		}
		if time.Now().After(until) {
			return nil
		}
	}
}

// underway is how long after the end events of what is under way are waited for.
const underway = 200 * time.Millisecond

// settle waits for what is under way, and for what has arrived but was not freed yet. Where nothing can be done for the latter,
// some of what arrived stays open.
func (r *run) settle() error {
	if !r.o.Losses {
		if x, err := newReleaser(); err == nil {
			defer x.close()
			r.own = x.inode
			_ = x.release(r.cpus)
		}
	}
	return r.drain(time.Now().Add(underway))
}

func (r *run) finish() (*packet.Recording, error) {
	r.enough()
	if err := r.settle(); err != nil {
		return nil, err
	}
	if r.more != nil {
		r.level(<-r.more)
	}
	r.rec.Ended = bootTime()
	r.cap.Stop()
	for !r.cap.Empty() {
		if err := r.drain(time.Now().Add(slice)); err != nil {
			return nil, err
		}
	}
	var any *netlive.Reader
	var active []*netstate.State
	for inode, x := range r.readers {
		switch {
		case x == nil:
		case r.active[inode]:
			s := x.Read(whole)
			any, active = x, append(active, s)
			r.rec.After[inode] = s
		case uint64(inode) == r.rec.Init:
			r.rec.After[inode] = x.Read(r.counted() | netlive.Deciding)
		default:
			r.rec.After[inode] = x.Read(r.counted())
		}
	}
	if any != nil {
		any.Owners(active...)
	}
	r.track.End()
	lost := r.cap.Lost()
	r.rec.LostRing, r.rec.Missed = lost.Ring, lost.Missed
	r.fill()
	return r.rec, nil
}

// fill puts what was seen so far into the recording.
func (r *run) fill() {
	r.rec.Flows, r.rec.Refusals, r.rec.Troubles, r.rec.Unkept, r.rec.Stages = r.track.Flows(), r.track.Refusals(), r.track.Troubles(), r.track.Unkept(), r.track.Stages()
}
