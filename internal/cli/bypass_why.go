package cli

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/internal/xskwhy"
	"github.com/fathom-trace/fathom/netstate/live"
)

// whyFlags say which sockets are watched, and for how long.
type whyFlags struct {
	device, netns string
	pid           int
	forTime       time.Duration
	json, quiet   bool
}

func bypassWhy() *cobra.Command {
	f := &whyFlags{forTime: defaultFor}
	c := &cobra.Command{
		Use:   "why [flags]",
		Short: "Say why packets for AF_XDP sockets are lost or late, whoever's they are",
		Long: `Watch the AF_XDP sockets of all processes for a while and say of each whether packets are lost or late, why, and what to change:
nobody reads the receive ring, nobody fills the fill ring, or too little, the owner sleeps, or is woken and waits for a CPU,
packets come by another queue, what is to be sent waits for a kick. Rings are looked at in the kernel; nothing is changed, and
nothing asked of the owner. The exit code is 1 if packets are lost or late, or there is no socket.

Examples:
  fathom bypass why
  fathom bypass why -i veth1 --netns ns1 --for 10s
  fathom bypass why --pid 4242 -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.device, "interface", "i", "", "only sockets on network `DEVICE`")
	fl.StringVar(&f.netns, "netns", "", "only in this network namespace: a `NAME`, a process or a path; \"\" is this one")
	fl.IntVarP(&f.pid, "pid", "p", 0, "only sockets of process `PID`")
	fl.Var(span{&f.forTime}, "for", "watch for this `TIME`")
	fl.BoolVarP(&f.json, "json", "j", false, "one JSON object a line for each socket")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages, only the answer")
	return c
}

func (f *whyFlags) run(c *cobra.Command) error {
	o := xskwhy.Options{PID: f.pid, Device: f.device, Proc: "/proc"}
	if c.Flags().Changed("netns") {
		r, err := live.Open(f.netns)
		if err != nil {
			return bypassError("watch AF_XDP sockets", err)
		}
		o.NetNS = uint32(r.NS().Inode)
		if err := r.Close(); err != nil {
			return err
		}
	}
	w, _, cpus, end, err := nicWorld()
	if err != nil {
		return err
	}
	defer end()
	o.CPUs = cpus
	if term.IsTerminal(os.Stderr) && !f.quiet {
		fmt.Fprintf(os.Stderr, "fathom: watching for %s\n", f.forTime)
	}
	ctx, cancel := (&nicFlags{forTime: f.forTime}).window(c.Context())
	defer cancel()
	seen, missing, err := xskwhy.Watch(ctx, w, o)
	if err != nil {
		return wrap("watch AF_XDP sockets", err)
	}
	if !f.quiet {
		for _, m := range missing {
			fmt.Fprintf(os.Stderr, "fathom: not seen: %s\n", m)
		}
	}
	if len(seen) == 0 {
		return f.none()
	}
	return f.tell(c, seen)
}

// none says that there is no such socket, or none that may be seen.
func (f *whyFlags) none() error {
	e := &diag.Error{What: "watch AF_XDP sockets", Because: "there is none", Code: exitNegative, Try: []string{"fathom bypass status"}}
	if f.device != "" {
		e.Because += " on " + f.device
	}
	if f.netns != "" {
		e.Because += " in " + f.netns
	}
	if f.pid != 0 {
		e.Because += fmt.Sprintf(" of process %d", f.pid)
	}
	if os.Geteuid() != 0 {
		e.Because += " that user " + fmt.Sprint(os.Geteuid()) + " may see: /proc shows the memory and the descriptors of one's own processes only"
		e.Code, e.Try = diag.ExitPermission, []string{"sudo fathom bypass why"}
	}
	return e
}

// tell writes what was seen, with what is on the devices.
func (f *whyFlags) tell(c *cobra.Command, seen []xskwhy.Seen) (err error) {
	places := f.places(seen)
	out := bufio.NewWriter(c.OutOrStdout())
	bad := false
	for i := range seen {
		s := &seen[i]
		why := s.Judge()[0].Why
		bad = bad || why != xskwhy.Fine && why != xskwhy.Nothing
		at := places[[2]uint64{uint64(s.First.NetNS), uint64(s.First.Index)}]
		if f.json {
			err = s.WriteJSON(out, at)
		} else {
			err = s.WriteText(out, at)
		}
		if err != nil {
			return err
		}
	}
	if err = out.Flush(); err == nil && bad {
		return exitError{exitNegative}
	}
	return err
}

// places finds the namespaces and XDP programs of sockets' devices, by the namespace's inode and the device's number.
func (f *whyFlags) places(seen []xskwhy.Seen) map[[2]uint64]xskwhy.Place {
	out := map[[2]uint64]xskwhy.Place{}
	for _, s := range seen {
		out[[2]uint64{uint64(s.First.NetNS), uint64(s.First.Index)}] = xskwhy.Place{}
	}
	for _, r := range live.OpenAll(mostNamespaces) {
		wanted := false
		for _, s := range seen {
			wanted = wanted || uint64(s.First.NetNS) == uint64(r.NS().Inode)
		}
		if wanted {
			st := r.Read(live.Links)
			for _, l := range st.Links {
				k := [2]uint64{uint64(r.NS().Inode), uint64(l.Index)}
				if _, ok := out[k]; !ok {
					continue
				}
				p := xskwhy.Place{NetNS: st.NS.Name}
				for _, x := range holdingOf(st, l).XDP {
					p.Programs = append(p.Programs, x.String())
				}
				out[k] = p
			}
		}
		_ = r.Close() // it was read
	}
	return out
}
