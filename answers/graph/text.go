package graph

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// Printer writes trees as text, in the form of the kernel's function_graph tracer, which people know and tools read.
type Printer struct {
	W    *bufio.Writer
	Name func(addr uint64) string  // names a function
	When func(ns uint64) time.Time // turns the events' clock into the time of day; nil leaves it out
	CPUs int                       // for the width of the column; 0 is 1
}

// Header writes what stands above all trees.
func (p *Printer) Header() error {
	_, err := io.WriteString(p.W, "# CPU  DURATION                  FUNCTION CALLS\n# |     |   |                     |   |   |   |\n")
	return err
}

// marks are the kernel's for what takes long: in microseconds, the first that is exceeded (trace_find_mark of
// kernel/trace/trace_output.c).
var marks = []struct {
	us   uint64
	mark byte
}{{1e6, '$'}, {1e5, '@'}, {1e4, '*'}, {1e3, '#'}, {100, '!'}, {10, '+'}}

// Mark is the kernel's mark for a duration in nanoseconds; a space for one that is short.
func Mark(ns uint64) byte {
	for _, m := range marks {
		if ns > m.us*1000 {
			return m.mark
		}
	}
	return ' '
}

// Duration writes nanoseconds as the kernel does: microseconds in seven figures ("  1.234 us" without the spaces).
func Duration(ns uint64) string {
	us := fmt.Sprint(ns / 1000)
	if len(us) < 7 {
		frac := fmt.Sprintf("%03d", ns%1000)
		us += "." + frac[:min(3, 7-len(us))]
	}
	return us + " us"
}

// Tree writes one tree.
func (p *Printer) Tree(t *Tree) error {
	head := fmt.Sprintf("%s-%d", t.Comm, t.Task)
	if p.When != nil {
		head += p.When(t.Start).Format(" at 15:04:05.000000")
	}
	if off := t.OffCPU(); off > 0 {
		head += ", " + Duration(off) + " of it off the CPU"
	}
	if t.Hidden > 0 {
		head += fmt.Sprintf(", %d more calls than are kept", t.Hidden)
	}
	p.line(t.CPU, "", 0, "/* "+head+" */")
	p.call(&t.Call, 0, false)
	p.W.WriteByte('\n')
	return p.W.Flush()
}

// blank is the width of the column of durations with their mark.
const blank = 14

// line writes a line: CPU, duration with mark, and text indented by depth.
func (p *Printer) line(cpu int, dur string, depth int, text string) {
	fmt.Fprintf(p.W, " %*d) %-*s|  %s%s\n", len(fmt.Sprint(max(p.CPUs-1, 0))), cpu, blank, dur, strings.Repeat("  ", depth), text)
}

func column(ns uint64) string { return string(Mark(ns)) + " " + Duration(ns) }

// call writes a call and what is below it. irq says that it stands below an arrow already.
func (p *Printer) call(c *Call, depth int, irq bool) {
	if c.Off {
		p.line(c.CPU, column(c.Dur), depth, "/* off the CPU */")
		return
	}
	name, note := p.Name(c.Func), ""
	if c.Cut {
		note = " /* did not return */"
	}
	if len(c.Calls) == 0 {
		p.line(c.CPU, column(c.Dur), depth, name+"();"+note)
		return
	}
	p.line(c.CPU, "", depth, name+"() {")
	for i, k := range c.Calls {
		first := k.Irq && !irq && (i == 0 || !c.Calls[i-1].Irq)
		last := k.Irq && !irq && (i == len(c.Calls)-1 || !c.Calls[i+1].Irq)
		if first {
			p.arrow(k, "==========> |", " /* "+k.Ctx.String()+" */")
		}
		p.call(k, depth+1, irq || k.Irq)
		if last {
			p.arrow(k, "<========== |", "")
		}
	}
	p.line(c.CPU, column(c.Dur), depth, "} /* "+name+" */"+note)
}

// arrow marks where an interrupt begins and ends, as the kernel does.
func (p *Printer) arrow(c *Call, arrow, note string) {
	fmt.Fprintf(p.W, " %*d)   %s%s\n", len(fmt.Sprint(max(p.CPUs-1, 0))), c.CPU, arrow, note)
}
