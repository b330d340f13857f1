// Package steer decides which packets of a device go to AF_XDP sockets: an XDP program is written from rules, in tcpdump's
// language or as fields, and attached; packets that match no rule go on to the kernel as if nothing were there.
//
//	p, err := steer.Attach(dev, []steer.Rule{{Filter: "udp dst port 4096"}}, steer.Options{})
//	err = p.Add(queue)         // packets of this queue that match go to its socket
//	err = p.Set(other)         // at once and without a gap: packets are tried by the old rules or by the new
//	hits, err := p.Hits()
//
// The program goes when the Program is closed, or with the process, kill -9 included: it is attached by a link that only a
// descriptor holds. A program that is there already is never removed: Attach gives a *held.Error that names it.
package steer

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/memlock"
)

// Mode is where the program runs.
type Mode int

// Modes.
const (
	Auto    Mode = iota // in the driver if it can, else generic
	Native              // in the driver
	Generic             // behind it, with an skb: every device can
)

// String gives the mode's name.
func (m Mode) String() string { return [...]string{"auto", "native", "generic"}[m] }

// Options say how a program is attached.
type Options struct {
	Mode Mode
	// Queues is for how many queues there is room in the map of sockets; 64 if 0.
	Queues int
	// MultiBuffer lets packets of several buffers come (BPF_F_XDP_HAS_FRAGS, Linux 5.18): drivers refuse a large MTU without.
	MultiBuffer bool
}

// maxRules bounds the rules of a program: they are tried one after the other.
const maxRules = 256

// hasFrags is BPF_F_XDP_HAS_FRAGS.
const hasFrags = 1 << 5

// Program is an attached program. It is safe for use by several goroutines.
type Program struct {
	dev  xsk.Device
	mode Mode
	opts Options

	mu    sync.Mutex
	rules []slotted
	link  link.Link
	prog  *ebpf.Program
	socks *ebpf.Map
	hits  *ebpf.Map
}

// Attach makes a program of rules and attaches it to a device. If there is a program already, the error is a *held.Error.
func Attach(dev xsk.Device, rules []Rule, o Options) (*Program, error) {
	if o.Queues == 0 {
		o.Queues = 64
	}
	p := &Program{dev: dev, opts: o}
	s, err := p.slots(rules)
	if err != nil {
		return nil, err
	}
	p.rules = s
	if err := p.make(); err != nil {
		return nil, errors.Join(fmt.Errorf("make XDP program for %s: %w", dev, err), p.Close())
	}
	if err := dev.In(p.attach); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// make loads the program and, the first time, its maps. What was there before is the caller's to close.
func (p *Program) make() error {
	spec, err := build(p.rules, p.opts.Queues, maxRules)
	if err != nil {
		return err
	}
	if p.opts.MultiBuffer {
		spec.Programs[progName].Flags |= hasFrags
	}
	var o ebpf.CollectionOptions
	if p.socks != nil {
		o.MapReplacements = map[string]*ebpf.Map{mapSocks: p.socks, mapHits: p.hits}
	}
	c, err := memlock.Try(func() (*ebpf.Collection, error) { return ebpf.NewCollectionWithOptions(spec, o) })
	if err != nil {
		return err
	}
	p.prog = c.DetachProgram(progName)
	if p.socks == nil {
		p.socks, p.hits = c.DetachMap(mapSocks), c.DetachMap(mapHits)
	}
	c.Close()
	return nil
}

// attach runs in the device's namespace.
func (p *Program) attach() error {
	ifi, err := net.InterfaceByName(p.dev.Name)
	if err != nil {
		return fmt.Errorf("attach XDP program to %s: %w", p.dev, err)
	}
	modes := []Mode{p.opts.Mode}
	if p.opts.Mode == Auto {
		modes = []Mode{Native, Generic}
	}
	var errs []error
	for _, m := range modes {
		flags := link.XDPDriverMode
		if m == Generic {
			flags = link.XDPGenericMode
		}
		p.link, err = link.AttachXDP(link.XDPOptions{Program: p.prog, Interface: ifi.Index, Flags: flags})
		if err == nil {
			p.mode = m
			return nil
		}
		if h := held.Look(p.dev.String(), ifi.Index, err); h != nil {
			return h
		}
		errs = append(errs, fmt.Errorf("attach XDP program to %s, %s: %w%s", p.dev, m, err, meaning(err)))
	}
	return errors.Join(errs...)
}

// Mode says where the program runs.
func (p *Program) Mode() Mode { return p.mode }

// Add has packets of a queue that match go to its socket. A program of one device takes queues of that device.
func (p *Program) Add(q *xsk.Queue) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.socks.Put(uint32(q.Key().Queue), uint32(q.FD())); err != nil {
		return fmt.Errorf("give queue %d of %s to its socket: %w", q.Key().Queue, p.dev, err)
	}
	return nil
}

// Set changes the rules: another program takes the place of this one in the link, at once. A rule that stays keeps its count.
func (p *Program) Set(rules []Rule) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.slots(rules)
	if err != nil {
		return err
	}
	was, old := p.rules, p.prog
	p.rules = s
	for _, r := range s {
		if !slices.Contains(was, r) {
			if err := p.zero(r.slot); err != nil {
				p.rules = was
				return err
			}
		}
	}
	if err = p.make(); err == nil {
		if err = p.link.Update(p.prog); err == nil {
			return old.Close()
		}
		err = errors.Join(err, p.prog.Close())
	}
	p.rules, p.prog = was, old
	return fmt.Errorf("change XDP program of %s: %w", p.dev, err)
}

func (p *Program) zero(slot int) error {
	return p.hits.Put(uint32(slot), make([]uint64, ebpf.MustPossibleCPU()))
}

// slots gives rules their places: those that are there keep theirs.
func (p *Program) slots(rules []Rule) ([]slotted, error) {
	if len(rules) > maxRules/2 { // old and new rules have places at the same time
		return nil, fmt.Errorf("%d rules; at most %d are tried one after the other", len(rules), maxRules/2)
	}
	var used [maxRules]bool
	old := slices.Clone(p.rules)
	out := make([]slotted, len(rules))
	for _, s := range old {
		used[s.slot] = true
	}
	for i, r := range rules {
		out[i] = slotted{r, -1}
		if at := slices.IndexFunc(old, func(s slotted) bool { return s.Rule == r }); at >= 0 {
			out[i].slot = old[at].slot
			old = slices.Delete(old, at, at+1)
		}
	}
	for i := range out {
		if out[i].slot < 0 {
			out[i].slot = slices.Index(used[:], false)
			used[out[i].slot] = true
		}
	}
	return out, nil
}

// Hits says how many packets each rule matched, in the order of the rules.
func (p *Program) Hits() ([]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]uint64, len(p.rules))
	var cpus []uint64
	for i, r := range p.rules {
		if err := p.hits.Lookup(uint32(r.slot), &cpus); err != nil {
			return nil, fmt.Errorf("read hits of rule %q: %w", r.Filter, err)
		}
		for _, n := range cpus {
			out[i] += n
		}
	}
	return out, nil
}

// ID is the program's number, as bpftool shows it.
func (p *Program) ID() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, err := p.prog.Info()
	if err != nil {
		return 0
	}
	id, _ := info.ID()
	return uint32(id)
}

// Close takes the program away.
func (p *Program) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
	}
	if p.prog != nil {
		errs = append(errs, p.prog.Close())
	}
	for _, m := range []*ebpf.Map{p.socks, p.hits} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	p.link, p.prog, p.socks, p.hits = nil, nil, nil, nil
	return errors.Join(errs...)
}
