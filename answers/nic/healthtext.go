package nic

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/netstate/nic"
)

// Health is the receive path, judged.
type Health struct {
	Over    time.Duration
	Checks  []Check
	Missing []nic.Missing
}

// Worst is the worst of the lights.
func (h *Health) Worst() Light {
	worst := Check{Light: Green}
	for _, c := range h.Checks {
		if c.Light != Green {
			worst.worse(c.Light)
		}
	}
	return worst.Light
}

var colours = map[Light]string{Green: "\x1b[32m", Yellow: "\x1b[33m", Red: "\x1b[31m"}

// WriteText writes it for people. all shows the counters of stages that are well, too.
func (h *Health) WriteText(w io.Writer, all, colour bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "the receive path, watched for %s: deltas, and totals in brackets\n", h.Over.Round(time.Millisecond))
	for i := range h.Checks {
		c := &h.Checks[i]
		light := fmt.Sprintf("%-5s", c.Light)
		if colour {
			light = colours[c.Light] + light + "\x1b[0m"
		}
		stage := c.Stage
		if c.Dev != "" {
			stage += " " + c.Dev
		}
		fmt.Fprintf(&b, "%s  %-22s %s\n", light, stage, c.numbers(all))
		for _, s := range c.Words {
			fmt.Fprintf(&b, "       %s\n", s)
		}
		for _, s := range c.Turn {
			fmt.Fprintf(&b, "       turn: %s\n", s)
		}
	}
	for _, m := range h.Missing {
		fmt.Fprintf(&b, "missing  %s: %s\n", m.What, m.Why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// numbers writes counters and limits: of counters that did not move the first four.
func (c *Check) numbers(all bool) string {
	var out []string
	still := 0
	for _, n := range c.Counters {
		if n.Delta == 0 {
			if still++; still > 4 && !all {
				continue
			}
		}
		s := fmt.Sprintf("%s +%d", n.Name, n.Delta)
		if n.Total != n.Delta && n.Total > 0 {
			s += fmt.Sprintf(" (%d)", n.Total)
		}
		out = append(out, s)
	}
	for _, l := range c.Limits {
		out = append(out, fmt.Sprintf("%s=%d", strings.TrimPrefix(l.Name, "net.core."), l.Value))
	}
	return strings.Join(out, ", ")
}

// WriteJSON writes it as JSON lines of type "check", then "missing", and at the end "health".
func (h *Health) WriteJSON(w io.Writer) error {
	e := jsonl.NewEncoder(w)
	for _, c := range h.Checks {
		if err := e.Encode(struct {
			Type string `json:"type"`
			Check
		}{"check", c}); err != nil {
			return err
		}
	}
	for _, m := range h.Missing {
		if err := e.Encode(map[string]string{"type": "missing", "what": m.What, "why": m.Why}); err != nil {
			return err
		}
	}
	return e.Encode(map[string]any{"type": "health", "light": h.Worst(), "for_ns": h.Over.Nanoseconds()})
}
