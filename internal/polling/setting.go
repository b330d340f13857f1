// Package polling measures a network device in each of the ways its packets can be waited for: interrupts, deferred ones, busy
// polling, threads. It changes settings of the device for that, under a lease, and puts them back.
package polling

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate/live"
)

// LeaseKind is the kind of the leases of settings; [Clean] puts back those whose owner is gone.
const LeaseKind = "nic-modes"

// Settings of a device, below /sys/class/net/DEV, and of the machine, below /proc/sys/net/core. All are numbers.
const (
	deferIRQs  = "napi_defer_hard_irqs" // since 5.8
	groTimeout = "gro_flush_timeout"
	threaded   = "threaded" // since 5.12
	busyRead   = "busy_read"
	busyPoll   = "busy_poll"
	sysctls    = "/proc/sys/net/core"
)

var (
	ofDevice  = []string{deferIRQs, groTimeout, threaded}
	ofMachine = []string{busyRead, busyPoll}
)

// What modes set: how often a device is polled in vain before its interrupts are on again, the time between such polls in ns, and
// how long who waits polls in us.
const (
	deferPolls = "2"
	flushNS    = "200000"
	busyMicros = 50
)

// settings are those of a device while modes are tried.
type settings struct {
	place  Place
	index  int
	sysctl bool // those of the machine, too
	now    map[string]string
	was    lent
	lease  *lease.Lease
}

// lent is what a lease holds.
type lent struct {
	NetNS uint64            `json:"netns"`
	Dev   string            `json:"dev"`
	Index int               `json:"ifindex"`
	Was   map[string]string `json:"was"`
}

// borrow reads the settings of a device and records them under a lease; leases may be nil for a device that goes with this process.
// The caller calls giveBack.
func borrow(o *Options) (*settings, error) {
	s := &settings{place: o.Reader, index: o.Index, sysctl: len(o.Command) > 0, now: map[string]string{}}
	s.was = lent{NetNS: o.Reader.NS().Inode, Dev: o.Dev, Index: o.Index}
	err := s.read()
	if _, ok := s.now[groTimeout]; err == nil && !ok {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read settings of %s: %w", o.Dev, err)
	}
	s.was.Was = maps.Clone(s.now)
	if o.Leases != nil {
		if s.lease, err = o.Leases.Claim(LeaseKind, fmt.Sprintf("%s in net:[%d]", o.Dev, s.was.NetNS), s.was, nil); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// read reads what is set now. What is not there is left out: the mode that needs it is refused.
func (s *settings) read() error {
	return s.files(func(path func(string) string) error {
		for _, name := range s.names() {
			b, err := os.ReadFile(path(name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			s.now[name] = strings.TrimSpace(string(b))
		}
		return nil
	})
}

func (s *settings) names() []string {
	if s.sysctl {
		return slices.Concat(ofDevice, ofMachine)
	}
	return ofDevice
}

// files runs f where the device is, with the paths of settings: "" for those of a device that has gone.
func (s *settings) files(f func(path func(name string) string) error) error {
	return s.place.Do(func() error {
		fd, err := netns.Sysfs(false)
		if err != nil {
			return err
		}
		defer os.NewFile(uintptr(fd), "sysfs").Close()
		dir, err := device(fmt.Sprintf("/proc/self/fd/%d/class/net", fd), s.index)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return f(func(name string) string {
			if slices.Contains(ofMachine, name) {
				return filepath.Join(sysctls, name)
			}
			if dir == "" {
				return ""
			}
			return filepath.Join(dir, name)
		})
	})
}

// device finds a device by its number, which it keeps when it is renamed and which no other one gets.
func device(class string, index int) (string, error) {
	es, err := os.ReadDir(class)
	if err != nil {
		return "", err
	}
	for _, e := range es {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "ifindex"))
		if err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(index) {
			return filepath.Join(class, e.Name()), nil
		}
	}
	return "", fmt.Errorf("network device with number %d: %w", index, fs.ErrNotExist)
}

// mode sets what a mode needs. An error says what the kernel or the device refused.
func (s *settings) mode(m nic.Mode) error {
	want := map[string]string{}
	for _, name := range s.names() {
		want[name] = "0"
	}
	switch m {
	case nic.ByDeferral:
		want[deferIRQs], want[groTimeout] = deferPolls, flushNS
	case nic.ByThread:
		want[threaded] = "1"
	case nic.ByBusyPoll:
		for _, name := range ofMachine {
			if s.sysctl {
				want[name] = strconv.Itoa(busyMicros)
			}
		}
	}
	return s.set(want)
}

// set writes those that are not as they should be.
func (s *settings) set(want map[string]string) error {
	return s.files(func(path func(string) string) error {
		var errs []error
		for _, name := range s.names() {
			to, asked := want[name]
			now, there := s.now[name]
			switch {
			case !asked || to == now || path(name) == "":
			case !there && to == "0":
			case !there:
				errs = append(errs, fmt.Errorf("set %s: this kernel does not have it here", name))
			default:
				if err := os.WriteFile(path(name), []byte(to), 0); err != nil {
					errs = append(errs, fmt.Errorf("set %s of %s to %s: %w", name, s.was.Dev, to, errors.Unwrap(err)))
					continue
				}
				s.now[name] = to
			}
		}
		return errors.Join(errs...)
	})
}

// giveBack puts all back; a device that has gone needs nothing.
func (s *settings) giveBack() error {
	err := s.set(s.was.Was)
	if err == nil && s.lease != nil {
		err = s.lease.Release()
	}
	return err
}

// Clean puts back the settings that a process which died changed.
func Clean(r lease.Record) error {
	var was lent
	if err := json.Unmarshal(r.Data, &was); err != nil {
		return fmt.Errorf("read lease of settings: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || strings.TrimSpace(string(boot)) != r.Owner.Boot {
		return err // they went with the kernel
	}
	s := &settings{index: was.Index, was: was, now: map[string]string{}}
	for name, v := range was.Was {
		if _, err := strconv.ParseUint(v, 10, 64); err != nil || !slices.Contains(slices.Concat(ofDevice, ofMachine), name) {
			return fmt.Errorf("read lease of settings: %s=%q is none", name, v)
		}
		s.sysctl = s.sysctl || slices.Contains(ofMachine, name)
	}
	ns, err := live.OpenInode(was.NetNS)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has gone, with its devices
	} else if err != nil {
		return err
	}
	s.place = ns
	if err = s.read(); err == nil { // what is as it was is not written: a device may refuse it
		err = s.giveBack()
	}
	return errors.Join(err, ns.Close())
}
