package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/draw"
	"github.com/fathom-trace/fathom/lab/fault/expect"
	"github.com/fathom-trace/fathom/lab/topology"
)

// Fault is a way to lose packets.
type Fault struct {
	Name, Title string
	Need        Need // what it takes of a kernel
	// Machine says that it changes a setting of the whole machine, and puts it back: for guests.
	Machine bool
	make    func(*Scene) error
}

// Need is something that not every kernel has. "" is nothing special.
type Need string

// What faults need.
const (
	Matchall      Need = "tc's matchall classifier (CONFIG_NET_CLS_MATCHALL, CONFIG_NET_ACT_GACT)"
	VLANFiltering Need = "VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING)"
	TCX           Need = "tcx (Linux 6.6)"
	CgroupBPF     Need = "BPF programs on cgroups (CONFIG_CGROUP_BPF), in the unified hierarchy"
	XFRM          Need = "IPsec policies (CONFIG_XFRM_USER)"
	Netem         Need = "netem (CONFIG_NET_SCH_NETEM)"
	Egress        Need = "nftables at egress (CONFIG_NETFILTER_EGRESS)"
	MD5           Need = "signatures of TCP (CONFIG_TCP_MD5SIG)"
	VLANDevice    Need = "VLAN devices (CONFIG_VLAN_8021Q)"
)

// MissingError says that this kernel lacks what a fault needs.
type MissingError struct {
	Need Need
	Err  error // what was tried
}

func (e *MissingError) Error() string { return fmt.Sprintf("it needs %s: %v", e.Need, e.Err) }

func (e *MissingError) Unwrap() error { return e.Err }

// Scene is a fault that was built. Close takes it down.
type Scene struct {
	Answer expect.Answer
	Netns  map[string]string // role to the name of its namespace

	deck   *draw.Deck
	labs   topology.Labs
	name   string // of the lab
	plan   plan
	ns     map[string]netns.NS
	sinks  []*sink
	send   func(context.Context) error
	sent   int
	idle   bool           // a device of its, which is up, never runs
	failed map[string]int // errors of sends, by name
	undo   []func() error
}

// Build makes a fault. leases keep what would outlive this process; seed makes what is drawn the same again. What was made
// goes with the scene, also if it fails.
func (f Fault) Build(leases lease.Dir, seed uint64) (s *Scene, err error) {
	s = &Scene{
		deck: draw.New(seed), Netns: map[string]string{}, ns: map[string]netns.NS{}, failed: map[string]int{},
		plan:   plan{names: map[string]string{}, kinds: map[string]string{}, props: map[string][]string{}},
		Answer: expect.Answer{ID: f.Name, Class: expect.Drop, Culprit: map[string]any{}, Devs: map[string][]string{}, Drops: map[string][]expect.Event{}},
		labs:   topology.Labs{Dir: leases, Person: fmt.Sprintf("f%d", os.Getpid())},
	}
	s.name = fmt.Sprintf("%s-%d", s.deck.Word(), s.deck.IntN(1e6))
	if err := f.make(s); err != nil {
		err = fmt.Errorf("build fault %s: %w", f.Name, err)
		if f.Need != "" && unsupported(err) {
			err = &MissingError{f.Need, err}
		}
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// unsupported says that an error is a kernel's that does not know what it was asked for.
func unsupported(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.ENOENT, unix.EINVAL, unix.ENOPROTOOPT, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, ebpf.ErrNotSupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Namespaces are the names of all, sorted.
func (s *Scene) Namespaces() []string { return slices.Sorted(maps.Values(s.Netns)) }

// Send sends the traffic, and waits until what arrives has arrived. Afterwards the answer is complete.
func (s *Scene) Send(ctx context.Context) error {
	if err := s.running(ctx); err != nil {
		return err
	}
	if err := s.send(ctx); err != nil {
		return err
	}
	s.Answer.Sent = s.sent
	if s.Answer.Class == expect.Errno {
		for _, n := range s.failed {
			s.Answer.Sent += n
		}
	}
	return nil
}

// linkTime bounds how long the kernel takes to find out that a device can send.
const linkTime = time.Minute

// running waits until devices that are up can send, which the kernel finds out some time later (net/core/link_watch.c): until
// then they drop. A scene some of whose devices never will waits by itself.
func (s *Scene) running(ctx context.Context) error {
	if s.idle {
		return nil
	}
	begin := time.Now()
	for role, ns := range s.ns {
		for {
			var not string
			err := ns.Do(func() error {
				devs, err := net.Interfaces()
				if i := slices.IndexFunc(devs, func(d net.Interface) bool { return d.Flags&net.FlagUp != 0 && d.Flags&net.FlagRunning == 0 }); i >= 0 {
					not = devs[i].Name
				}
				return err
			})
			if err != nil {
				return err
			}
			if not == "" {
				break
			}
			if time.Since(begin) > linkTime {
				return fmt.Errorf("%s of %s does not run after %v: %w", not, role, linkTime, os.ErrDeadlineExceeded)
			}
			if err := wait(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// Settle counts what the sockets got. It is called when nothing more is to come.
func (s *Scene) Settle() {
	got := 0
	for _, k := range s.sinks {
		got += k.settle()
	}
	if s.Answer.Delivered == nil && !s.Answer.Retries {
		s.Answer.Delivered = &got
	}
}

// Close takes all down.
func (s *Scene) Close() error {
	var errs []error
	for _, u := range slices.Backward(s.undo) {
		errs = append(errs, u())
	}
	for _, k := range s.sinks {
		errs = append(errs, k.close())
	}
	for _, ns := range s.ns {
		errs = append(errs, ns.Close())
	}
	if lab, err := s.labs.Find(s.name); err == nil {
		errs = append(errs, s.labs.Down(lab))
	}
	return errors.Join(errs...)
}
