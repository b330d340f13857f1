package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

// holding is who has what of one device.
type holding struct {
	Type    string            `json:"type"` // "device"
	NetNS   string            `json:"netns"`
	Device  string            `json:"dev"`
	XDP     []held.Program    `json:"xdp,omitempty"`
	TC      []netstate.Filter `json:"tc,omitempty"`
	Sockets []netstate.Socket `json:"sockets,omitempty"` // AF_XDP
}

// mostNamespaces bounds how many are looked at.
const mostNamespaces = 4096

func bypassStatus() *cobra.Command {
	var ns string
	var asJSON bool
	c := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show who holds which XDP program, queue, pin and AF_XDP socket",
		Long: `Show, in every network namespace that can be found, devices with XDP or tc programs or AF_XDP sockets: which program, by which
link or pin, of which process; which queue, and what the kernel dropped there.

Examples:
  fathom bypass status
  fathom bypass status --netns ns1
  sudo fathom bypass status -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			hs, err := holdings(c.Flags().Changed("netns"), ns)
			if err != nil {
				return bypassError("status", err)
			}
			if err := writeHoldings(c.OutOrStdout(), hs, asJSON); err != nil {
				return err
			}
			known := 0
			for _, h := range hs {
				known += len(h.Sockets)
			}
			if all := held.Mapped("/proc"); known == 0 && len(all) > 0 && !asJSON {
				_, err = fmt.Fprintf(c.OutOrStdout(), "AF_XDP sockets, whose queues this kernel does not tell: %s\n", strings.Join(all, ", "))
			}
			return err
		},
	}
	c.Flags().StringVar(&ns, "netns", "", "only this network namespace: a `NAME`, a process or a path; \"\" is this one")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "one JSON object a line for each device")
	return c
}

// holdings looks at one namespace, or at all.
func holdings(one bool, ns string) (out []holding, err error) {
	rs := []*live.Reader{nil}
	if one {
		if rs[0], err = live.Open(ns); err != nil {
			return nil, err
		}
	} else {
		rs = live.OpenAll(mostNamespaces)
	}
	told := map[string]bool{}
	for _, r := range rs {
		defer r.Close()
		st := r.Read(live.Links | live.Sockets | live.TC)
		r.Owners(st)
		for _, m := range st.Missing {
			text := fmt.Sprintf("%s (%s)", m.What, m.Err)
			if (strings.Contains(m.What, "XDP") || strings.Contains(m.What, "link")) && !told[text] {
				told[text] = true
				fmt.Fprintf(os.Stderr, "fathom: not looked at: %s\n", text)
			}
		}
		for _, l := range st.Links {
			if h := holdingOf(st, l); len(h.XDP)+len(h.TC)+len(h.Sockets) > 0 {
				out = append(out, h)
			}
		}
	}
	return out, nil
}

func holdingOf(st *netstate.State, l netstate.Link) holding {
	h := holding{Type: "device", NetNS: st.NS.Name, Device: l.Name}
	for _, x := range l.XDP {
		p := held.Program{Ifindex: l.Index, Mode: x.Mode, ID: x.ID, Name: x.Name}
		held.Describe(&p)
		h.XDP = append(h.XDP, p)
	}
	for _, f := range st.Filters {
		if f.Link == l.Index && f.Prog != nil {
			h.TC = append(h.TC, f)
		}
	}
	for _, s := range st.Sockets {
		if s.XSK != nil && s.XSK.Link == l.Index {
			h.Sockets = append(h.Sockets, s)
		}
	}
	return h
}

func writeHoldings(w io.Writer, hs []holding, asJSON bool) error {
	for _, h := range hs {
		if asJSON {
			if err := jsonl.Write(w, h); err != nil {
				return err
			}
			continue
		}
		lines := []string{fmt.Sprintf("%s in %s", h.Device, h.NetNS)}
		for _, p := range h.XDP {
			line := "  xdp     " + p.String()
			if p.Pin != "" && len(p.Owners) > 0 {
				line += ", pinned as " + p.Pin
			}
			lines = append(lines, line)
		}
		for _, f := range h.TC {
			lines = append(lines, fmt.Sprintf("  %-7s program %q (id %d)", f.Parent, f.Prog.Name, f.Prog.ID))
		}
		for _, s := range h.Sockets {
			owner := s.Owner
			if owner == "" {
				owner = "a process that cannot be seen"
			}
			x := s.XSK
			lines = append(lines, fmt.Sprintf("  queue %d AF_XDP socket of %s; dropped %d, ring full %d, no frame %d", x.Queue, owner, x.RxDropped, x.RingFull, x.FillEmpty))
		}
		if _, err := fmt.Fprintln(w, strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	if len(hs) == 0 && !asJSON {
		_, err := fmt.Fprintln(w, "no device has an XDP or tc program, or an AF_XDP socket")
		return err
	}
	return nil
}
