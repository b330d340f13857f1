package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/jsonl"
)

// bypassCall is a call, as programs are told.
type bypassCall struct {
	Type  string `json:"type"` // "call"
	Call  string `json:"call"`
	Why   string `json:"why"`
	Error string `json:"error,omitempty"`
}

func bypassExplain() *cobra.Command {
	var f bypassFlags
	c := &cobra.Command{
		Use:   "explain -i DEVICE [flags]",
		Short: "Show the system calls by which one goes around the kernel, as they are made",
		Long: `Open an AF_XDP socket on a queue, attach an XDP program that takes nothing, and take both away again; each system call is shown
when it has been made, with what it is for and what the kernel answered.

Examples:
  fathom bypass explain -i veth1
  fathom bypass explain -i eth0 -z --wait busy-poll
  fathom bypass explain -i veth1 --netns ns1 -S -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := refuseFlags(c, "nothing is sent or received", unsent); err != nil {
				return err
			}
			cfg, err := f.config()
			if err == nil && len(cfg.Queues) != 1 {
				err = errors.New("one queue: -q N")
			}
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			w := c.OutOrStdout()
			cfg.Queue.Trace = func(x xsk.Call) { f.call(w, x) }
			f.call(w, xsk.Call{Text: fmt.Sprintf("mmap(%d bytes, MAP_PRIVATE|MAP_ANONYMOUS|MAP_POPULATE)", f.frames*f.frameSize), Why: fmt.Sprintf("%d frames of %d bytes", f.frames, f.frameSize)})
			u, err := xsk.NewUMEM(cfg.Memory)
			if err != nil {
				return bypassError("explain", err)
			}
			q, err := u.OpenContext(c.Context(), cfg.Device, cfg.Queues[0], cfg.Queue)
			if err != nil {
				return errors.Join(bypassError("explain", err), u.Close())
			}
			err = f.explainProgram(w, cfg.Device, q, cfg.Steer)
			f.call(w, xsk.Call{Text: fmt.Sprintf("munmap(four rings), close(%d), munmap(frames)", q.FD()), Why: "as long as a ring is mapped, the queue is not free"})
			return bypassError("explain", errors.Join(err, q.Close(), u.Close()))
		},
	}
	f.common(c.Flags())
	for _, name := range unsent {
		_ = c.Flags().MarkHidden(name) // it exists
	}
	return c
}

// unsent are flags of those who send and receive.
var unsent = []string{"batch-size", "interval", "duration", "for", "quiet"}

// refuseFlags refuses flags that would change nothing.
func refuseFlags(c *cobra.Command, why string, names []string) error {
	for _, name := range names {
		if fl := c.Flags().Lookup(name); fl != nil && fl.Changed {
			return usageError{c.CommandPath(), fmt.Errorf("%s: --%s has no meaning there", why, name)}
		}
	}
	return nil
}

// explainProgram attaches, and shows what cilium/ebpf calls for us.
func (f *bypassFlags) explainProgram(w io.Writer, dev xsk.Device, q *xsk.Queue, o steer.Options) error {
	p, err := steer.Attach(dev, nil, o)
	f.call(w, xsk.Call{Text: "bpf(BPF_MAP_CREATE, BPF_MAP_TYPE_XSKMAP)", Why: "which socket takes the packets of which queue"})
	f.call(w, xsk.Call{Text: "bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_XDP)", Why: "the program that decides: packets of interest by bpf_redirect_map, all others XDP_PASS"})
	f.call(w, xsk.Call{Text: "bpf(BPF_LINK_CREATE, BPF_XDP, " + dev.String() + ")", Why: "from here on each packet of the device meets the program; it goes with the link's descriptor", Err: err})
	if err != nil {
		return err
	}
	err = p.Add(q)
	f.call(w, xsk.Call{Text: fmt.Sprintf("bpf(BPF_MAP_UPDATE_ELEM, queue %d, socket %d)", q.Key().Queue, q.FD()), Why: "from here on packets come", Err: err})
	f.call(w, xsk.Call{Text: fmt.Sprintf("sendto(%d, NULL, 0, MSG_DONTWAIT), poll(%d) or recvfrom(%d, NULL, 0, MSG_DONTWAIT)", q.FD(), q.FD(), q.FD()), Why: "only when a ring says that the kernel must be woken: not made here"})
	return errors.Join(err, p.Close())
}

// call prints a call. A line that cannot be written shows at the next.
func (f *bypassFlags) call(w io.Writer, x xsk.Call) {
	o := bypassCall{"call", x.Text, x.Why, ""}
	if x.Err != nil {
		o.Error = x.Err.Error()
	}
	if f.json {
		_ = jsonl.Write(w, o)
		return
	}
	line := x.Text
	if x.Err != nil {
		line += " = " + o.Error
	}
	fmt.Fprintf(w, "%s\n%s%s\n", line, strings.Repeat(" ", 8), x.Why)
}
