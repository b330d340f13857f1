// Package view turns what comes back from the kernel, records of the event ring and elements of maps, into text and
// JSON lines in bpftrace's forms. It touches no system: names of addresses, users and cgroups come from a Resolver.
package view

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// Resolver names what only the system knows.
type Resolver interface {
	// KernelStack and UserStack give a line for each frame, the innermost first.
	KernelStack(addrs []uint64, mode types.StackMode) []string
	UserStack(pid int, addrs []uint64, mode types.StackMode) []string
	KernelSym(addr uint64) string
	UserSym(pid int, addr uint64) string
	Username(uid uint64) string
	CgroupPath(hierarchy, id uint64) string
	// Strftime formats ns of a clock: 0 boot time, 1 monotonic, 2 TAI, 3 TAI by software; -1 is now.
	Strftime(format string, ns uint64, clock int) string
}

// Entry is one element of a map as read from the kernel; per-CPU maps have one value for each possible CPU.
type Entry struct {
	Key    []byte
	Values [][]byte
}

// Action is what a record asks the caller to do; Event is nil when printing was all.
type Action struct {
	Event *ir.Event
	Text  string // system, cat: the formatted string
}

// Options say where and how to print.
type Options struct {
	W, Err   io.Writer
	Program  *ir.Program
	Resolver Resolver
	JSON     bool
	Arch     string  // GOARCH of the kernel: system calls have other numbers on others; default amd64
	Trunc    *string // what follows strings that were cut, default ".."
	// MaxStrlen is the size of strings that str() read without a length: one that fills it was cut. Default 1024.
	MaxStrlen int
	NoWarn    bool // warnf prints nothing
}

// Output prints. One goroutine may use it.
type Output struct {
	o     Options
	buf   []byte // what is being printed
	line  []byte // the JSON around it
	fmts  []*format
	trunc string
}

// New returns an Output.
func New(o Options) *Output {
	if o.MaxStrlen == 0 {
		o.MaxStrlen = 1024
	}
	out := &Output{o: o, trunc: "..", fmts: make([]*format, len(o.Program.Events))}
	if o.Trunc != nil {
		out.trunc = *o.Trunc
	}
	return out
}

var le = binary.LittleEndian

// Event prints one record: a uint64 index into Program.Events and the payload.
func (o *Output) Event(rec []byte) (Action, error) {
	if len(rec) < 8 {
		return Action{}, fmt.Errorf("record of %d bytes", len(rec))
	}
	id := le.Uint64(rec)
	if id >= uint64(len(o.o.Program.Events)) {
		return Action{}, fmt.Errorf("record of unknown event %d", id)
	}
	ev, data := o.o.Program.Events[id], rec[8:]
	if ev.Payload != nil && len(data) < ev.Payload.Size {
		return Action{}, fmt.Errorf("record of event %d has %d bytes, not %d", id, len(data), ev.Payload.Size)
	}
	o.buf = o.buf[:0]
	switch ev.Kind {
	case ir.EvPrintf:
		o.buf = o.format(o.buf, int(id), ev, data)
		return Action{}, o.text(ir.EvPrintf, o.buf)
	case ir.EvErrorf, ir.EvWarnf:
		if o.o.NoWarn && ev.Kind == ir.EvWarnf {
			return Action{}, nil
		}
		o.buf = o.format(o.buf, int(id), ev, data)
		return Action{}, o.message(ev, o.buf)
	case ir.EvSystem, ir.EvCat:
		return Action{Event: ev, Text: string(o.format(nil, int(id), ev, data))}, nil
	case ir.EvPrint:
		if ev.Payload == nil || len(ev.Payload.Fields) == 0 {
			return Action{}, fmt.Errorf("record of event %d has no value", id)
		}
		f := ev.Payload.Fields[0]
		return Action{}, o.print(f.Type, data[f.Off:f.Off+f.Type.Size])
	case ir.EvTime:
		return Action{}, o.text(ir.EvTime, []byte(o.o.Resolver.Strftime(ev.Fmt, 0, -1)))
	case ir.EvJoin:
		return Action{}, o.join(ev, data)
	}
	return Action{Event: ev}, nil
}

// jsonTypes are the "type" of what an event prints.
var jsonTypes = map[ir.EventKind]string{
	ir.EvPrintf: "printf", ir.EvTime: "time", ir.EvJoin: "join", ir.EvSystem: "syscall", ir.EvCat: "cat", ir.EvPrint: "value",
}

// Text prints what an action produced: the output of a command, the contents of a file.
func (o *Output) Text(kind ir.EventKind, s string) error {
	o.buf = append(o.buf[:0], s...)
	if kind == ir.EvSystem && !o.o.JSON {
		o.buf = append(o.buf, '\n') // bpftrace ends the line, whether the command did or not
	}
	return o.text(kind, o.buf)
}

func (o *Output) text(kind ir.EventKind, b []byte) error {
	if !o.o.JSON {
		_, err := o.o.W.Write(b)
		return err
	}
	o.line = append(append(o.line[:0], `{"type": "`...), jsonTypes[kind]...)
	o.line = quote(append(o.line, `", "data": `...), string(b))
	o.line = append(o.line, "}\n"...)
	_, err := o.o.W.Write(o.line)
	return err
}

// message prints errorf and warnf: as a diagnostic at the call, or as JSON among the other output.
func (o *Output) message(ev *ir.Event, b []byte) error {
	if o.o.JSON {
		name := "errorf"
		if ev.Kind == ir.EvWarnf {
			name = "warnf"
		}
		o.line = append(append(o.line[:0], `{"type": "`...), name...)
		o.line = quote(append(o.line, `", "msg": `...), string(b))
		return o.place(ev)
	}
	sev := syntax.Error
	if ev.Kind == ir.EvWarnf {
		sev = syntax.Warning
	}
	_, err := fmt.Fprintf(o.o.Err, "%v: %v: %s\n", ev.Span, sev, bytes.TrimSuffix(b, []byte{'\n'}))
	diag.Expanded(o.o.Err, sev, ev.Span.Via)
	return err
}

// place ends a JSON line with where in the program it comes from.
func (o *Output) place(ev *ir.Event) error {
	file := ""
	if ev.Span.Src != nil {
		file = ev.Span.Src.Name
	}
	o.line = quote(append(o.line, `, "filename": `...), file)
	o.line = fmt.Appendf(o.line, ", \"line\": %d, \"col\": %d}\n", ev.Span.Start.Line, ev.Span.Start.Col)
	_, err := o.o.W.Write(o.line)
	return err
}

// Failure tells as JSON of a helper that failed (EvFail): rc is what it returned, a negative errno. It gives false where
// output is text, where diagnostics are the caller's.
func (o *Output) Failure(ev *ir.Event, rc int64) (bool, error) {
	if !o.o.JSON {
		return false, nil
	}
	o.line = quote(append(o.line[:0], `{"type": "helper_error", "msg": `...), strerror(rc))
	o.line = quote(append(o.line, `, "helper": `...), ev.Text)
	o.line = strconv.AppendInt(append(o.line, `, "retcode": `...), rc, 10)
	return true, o.place(ev)
}

func (o *Output) print(t *types.Type, b []byte) error {
	if o.o.JSON {
		o.buf = append(o.json(append(o.buf, `{"type": "value", "data": `...), t, b), "}\n"...)
	} else {
		o.buf = append(o.value(o.buf, t, b), '\n')
	}
	_, err := o.o.W.Write(o.buf)
	return err
}

// joinSize is the room each string has in a join record (ir/build).
const joinSize = 1024

func (o *Output) join(ev *ir.Event, data []byte) error {
	for i := 0; (i+1)*joinSize <= len(data); i++ {
		if i > 0 {
			o.buf = append(o.buf, ev.Fmt...)
		}
		o.buf = append(o.buf, cstring(data[i*joinSize:(i+1)*joinSize])...)
	}
	if !o.o.JSON {
		o.buf = append(o.buf, '\n')
	}
	return o.text(ir.EvJoin, o.buf)
}

// Attaching says how many probes are about to be attached: the line older versions of bpftrace print.
func (o *Output) Attaching(n int) {
	if !o.o.JSON {
		fmt.Fprintf(o.o.Err, "Attaching %d probe%s...\n", n, plural(n))
	}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// Attached says how many probes are attached.
func (o *Output) Attached(n int) {
	if o.o.JSON {
		fmt.Fprintf(o.o.W, "{\"type\": \"attached_probes\", \"count\": %d, \"data\": {\"probes\": %d}}\n", n, n)
		return
	}
	fmt.Fprintf(o.o.Err, "Attached %d probe%s\n", n, plural(n))
}

// End separates the program's own output from what is printed when it is over.
func (o *Output) End() {
	if !o.o.JSON {
		io.WriteString(o.o.W, "\n\n")
	}
}

// Lost says how many events did not fit the ring.
func (o *Output) Lost(n uint64) {
	if o.o.JSON {
		fmt.Fprintf(o.o.W, "{\"type\": \"lost_events\", \"count\": %d, \"data\": {\"events\": %d}}\n", n, n)
		return
	}
	fmt.Fprintf(o.o.Err, "Lost %d events\n", n)
}

func cstring(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}
