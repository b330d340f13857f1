package why

import (
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

// WriteJSON writes the answer as one line.
func (a *Answer) WriteJSON(w io.Writer) error {
	return jsonl.Write(w, a)
}

// names are how frames are called in the text form.
var names = map[Frame]string{ARP: "ARP request", Unicast: "packet", Broadcast: "broadcast"}

// WriteText writes the answer for people.
func (a *Answer) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in network namespace %s: %s\n", a.Dev, a.NetNS, a.State)
	for _, r := range a.Rows {
		what := names[r.Frame]
		switch {
		case r.Frame == Broadcast:
			what += " to 255.255.255.255"
		case a.Dst.IsValid():
			what += " for " + a.Dst.String()
		default:
			what += " for an address it has not"
		}
		if a.Src.IsValid() {
			what += " from " + a.Src.String()
		}
		fmt.Fprintf(&b, "\n%s: %s in %s", what, r.Verdict, r.Step)
		if r.Reason != "" {
			fmt.Fprintf(&b, ", reason %s", r.Reason)
		}
		if r.Counter != "" {
			fmt.Fprintf(&b, ", counted as %s", r.Counter)
		}
		fmt.Fprintf(&b, "\n    because %s\n", r.Because)
		if r.Fix != "" {
			fmt.Fprintf(&b, "    try: %s\n", r.Fix)
		}
	}
	b.WriteString("\n" + a.raw() + "\n")
	for _, n := range a.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// raw says who receives frames all the same.
func (a *Answer) raw() string {
	for _, r := range a.Rows {
		if r.Raw {
			return "Packet sockets (tcpdump, DHCP clients), AF_XDP sockets and XDP programs receive all of them: they come before addresses matter."
		}
	}
	return "Packet sockets, AF_XDP sockets and XDP programs receive nothing either."
}
