// Package watch says who changed a network, a sysctl or the set of modules, how, and on which path through the kernel: it
// joins what package netstate/changes tells with what BPF programs saw at that moment.
package watch

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/netstate/changes"
)

// Record is one change with its author. docs/watch.md describes its JSON form, which is stable.
type Record struct {
	Type    string       `json:"type"` // "change"
	Time    time.Time    `json:"time"`
	Kind    changes.Kind `json:"kind"`
	Act     changes.Act  `json:"act"`
	NetNS   string       `json:"netns,omitempty"` // as netstate.Namespace has it
	Inode   uint64       `json:"netns_inode,omitempty"`
	Dev     string       `json:"dev,omitempty"`
	What    string       `json:"what"` // the object on one line
	Diff    []string     `json:"diff,omitempty"`
	Old     any          `json:"old,omitempty"` // as package netstate has it; of a sysctl its value
	New     any          `json:"new,omitempty"`
	How     string       `json:"how"`               // By… and Unknown
	Via     string       `json:"via,omitempty"`     // what was asked for, where How is a consequence
	Request string       `json:"request,omitempty"` // RTM_…, or a system call
	Who     *Who         `json:"who,omitempty"`
	Because string       `json:"because"`
	Stack   []string     `json:"stack,omitempty"` // function+offset, the innermost first

	plain bool // the text need not name the namespace
}

// Who is a task that changed something. Evidence says how it is known.
type Who struct {
	PID      int     `json:"pid"`
	TID      int     `json:"tid,omitempty"`
	Comm     string  `json:"comm,omitempty"`
	UID      *uint32 `json:"uid,omitempty"` // nil if it is not known
	User     string  `json:"user,omitempty"`
	Cgroup   string  `json:"cgroup,omitempty"`
	Unit     string  `json:"unit,omitempty"`    // of systemd
	Kernel   bool    `json:"kernel,omitempty"`  // a thread of the kernel
	Parents  []Proc  `json:"parents,omitempty"` // its parent first
	Evidence string  `json:"evidence"`          // Seen, Port, Fanotify
}

// How a Who is known: values of its Evidence.
const (
	Seen     = "seen"     // at work, by a program in the kernel
	Port     = "port"     // by the port of its netlink socket, which for most is the number of the process
	Fanotify = "fanotify" // fanotify(7) told the process
)

// Proc is a process by number and name.
type Proc struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
}

func (p Proc) String() string { return fmt.Sprintf("%s[%d]", p.Comm, p.PID) }

// String is how people are told of a task: "ip[5123] (root, session-1.scope, run by bash[400])".
func (w *Who) String() string {
	comm := w.Comm
	if comm == "" {
		comm = "a process that has ended"
	}
	s := fmt.Sprintf("%s[%d]", comm, w.PID)
	var in []string
	if w.Kernel {
		return s + " (a thread of the kernel)"
	}
	switch {
	case w.User != "":
		in = append(in, w.User)
	case w.UID != nil:
		in = append(in, fmt.Sprintf("uid %d", *w.UID))
	}
	switch {
	case w.Unit != "":
		in = append(in, w.Unit)
	case w.Cgroup != "" && w.Cgroup != "/":
		in = append(in, "cgroup "+w.Cgroup)
	}
	var above []string
	for _, p := range w.Parents {
		if p.PID == 1 && len(above) > 0 || p.PID == 0 || len(above) == 3 {
			break
		}
		above = append(above, p.String())
	}
	if len(above) > 0 {
		in = append(in, "run by "+strings.Join(above, " < "))
	}
	if len(in) == 0 {
		return s
	}
	return s + " (" + strings.Join(in, ", ") + ")"
}

// WriteJSON writes the record as one line.
func (r *Record) WriteJSON(w io.Writer) error {
	return jsonl.Write(w, r)
}

// WriteText writes the record for people: a line that says what, an indented one that says why, and on request the path
// through the kernel.
func (r *Record) WriteText(w io.Writer, stack bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", r.Time.Format("15:04:05.000"), r.Kind, r.Act, r.What)
	if r.NetNS != "" && !r.plain && r.Kind != changes.NetNS {
		fmt.Fprintf(&b, " [netns %s]", r.NetNS)
	}
	for _, d := range r.Diff {
		fmt.Fprintf(&b, ", %s", d)
	}
	fmt.Fprintf(&b, "\n    because %s\n", r.Because)
	if stack {
		for _, f := range r.Stack {
			fmt.Fprintf(&b, "        %s\n", f)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
