package ftrace

import (
	"fmt"
	"iter"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/traceevent"
)

// maxEvents and maxFields bound what a broken kernel says.
const (
	maxEvents = 1 << 16
	maxFields = 1 << 10
)

// Formats reads the formats of all events. Those that cannot be read are left out, and the error says how many.
func Formats(t kernel.Target) ([]*traceevent.Format, error) {
	errs := &kernel.Errors{}
	var out []*traceevent.Format
	bad, why := 0, error(nil)
	for system, text := range FormatTexts(t, errs) {
		f, err := traceevent.Parse([]byte(text))
		if err != nil {
			bad, why = bad+1, err
			continue
		}
		f.System = system
		out = append(out, f)
	}
	if err := errs.Take(); err != nil {
		bad, why = bad+errs.N, err
	}
	if bad > 0 {
		return out, fmt.Errorf("formats of events: %w (%d in all)", why, bad)
	}
	return out, nil
}

// FormatTexts writes the format of each event as the kernel does in events/SYSTEM/EVENT/format (f_show in
// kernel/trace/trace_events.c), with the system it is of.
func FormatTexts(t kernel.Target, errs *kernel.Errors) iter.Seq2[string, string] {
	return func(yield func(system, text string) bool) {
		if len(t.Symbols().ByName("ftrace_events")) == 0 {
			return
		}
		_, tracepoint, named := t.Types().EnumValue("TRACE_EVENT_FL_TRACEPOINT")
		common := fields(kernel.Global(t, errs, "struct list_head", "ftrace_common_fields"))
		n := 0
		for c := range kernel.Global(t, errs, "struct list_head", "ftrace_events").List("struct trace_event_call", "list") {
			if n++; n > maxEvents {
				return
			}
			name := c.Get("name")
			if !named || c.Get("flags").Uint()&uint64(tracepoint) != 0 {
				name = c.Get("tp.name")
			}
			class := c.Get("class").Deref()
			var b strings.Builder
			fmt.Fprintf(&b, "name: %s\nID: %d\nformat:\n%s\n%s\nprint fmt: %s\n", name.String(), c.Get("event.type").Int(), common, fields(fieldList(c, class)), printFmt(c))
			if !yield(class.Get("system").String(), b.String()) {
				return
			}
		}
	}
}

// maxPrint bounds a print fmt; the longest have some 16 KiB.
const maxPrint = 1 << 18

func printFmt(call kernel.Value) string {
	s, err := kernel.ReadString(call.Target(), call.Get("print_fmt").Uint(), maxPrint)
	if err != nil {
		return ""
	}
	return s
}

// fieldList is where an event's fields hang: in its class, but for system calls in what is known of each.
func fieldList(call, class kernel.Value) kernel.Value {
	if get := class.Get("get_fields").Uint(); get != 0 {
		if y, ok := call.Target().Symbols().At(get); ok && y.Name == "syscall_get_enter_fields" {
			return call.Cast("struct syscall_metadata").Shift(call.Get("data").Uint()).Get("enter_fields")
		}
	}
	return class.Get("fields")
}

// fields writes the lines of fields. The list has the last field first.
func fields(head kernel.Value) string {
	var b strings.Builder
	f := head.Cast("struct ftrace_event_field")
	link := f.Shift(0).Get("link").Addr
	at := head.Get("prev").Uint()
	for n := 0; at != head.Addr && at != 0 && n < maxFields; n++ {
		v := f.Shift(at - link)
		field(&b, v)
		at = v.Get("link.prev").Uint()
	}
	return b.String()
}

func field(b *strings.Builder, v kernel.Value) {
	typ, name := v.Get("type").String(), v.Get("name").String()
	if i := strings.IndexByte(typ, '['); i >= 0 && !strings.HasPrefix(typ, "__data_loc") {
		bounds := typ[i:]
		if v.Has("len") {
			if bounds = "[]"; v.Get("len").Int() != 0 {
				bounds = fmt.Sprintf("[%d]", v.Get("len").Int())
			}
		}
		typ, name = typ[:i], name+bounds
	}
	signed := 0
	if v.Get("is_signed").Uint() != 0 {
		signed = 1
	}
	fmt.Fprintf(b, "\tfield:%s %s;\toffset:%d;\tsize:%d;\tsigned:%d;\n", typ, name, v.Get("offset").Int(), v.Get("size").Int(), signed)
}

// Env is what print fmts need of a kernel: names of its addresses, and texts in its memory.
func Env(t kernel.Target) *traceevent.Env {
	return &traceevent.Env{
		Symbol: func(addr uint64) (name string, off, size uint64, module string, ok bool) {
			y, ok := t.Symbols().At(addr)
			if !ok || !y.IsText() {
				return "", 0, 0, "", false
			}
			return y.Name, addr - y.Addr, kernel.Extent(t.Symbols(), y.Addr, maxFunction), y.Module, true
		},
		Text: func(addr uint64) (string, bool) {
			s, err := kernel.ReadString(t, addr, pageSize)
			return s, err == nil
		},
	}
}

// maxFunction bounds the size of a function.
const maxFunction = 1 << 20

// pidMask is PID_MAX_DEFAULT−1, by which tasks are remembered; commLen is TASK_COMM_LEN.
const (
	pidMask = 1<<15 - 1
	commLen = 16
)

// Comm gives the names of tasks as the tracer remembers them, of those that are no more, too. tasks has those that are alive;
// it is asked for what the tracer has forgotten.
func Comm(t kernel.Target, tasks map[int]string) func(tid int, time uint64) (string, bool) {
	errs := &kernel.Errors{}
	var saved kernel.Value
	if len(t.Symbols().ByName("savedcmd")) > 0 {
		if p := kernel.Global(t, errs, "struct saved_cmdlines_buffer *", "savedcmd"); p.Uint() != 0 {
			saved = p.Deref()
		}
	}
	return func(tid int, _ uint64) (string, bool) {
		if tid == 0 {
			return "<idle>", true
		}
		if saved.OK() {
			i := saved.Get("map_pid_to_cmdline").At(tid & pidMask).Int()
			if i >= 0 && i < saved.Get("cmdline_num").Int() && saved.Get("map_cmdline_to_pid").At(i).Int() == tid {
				s, err := kernel.ReadString(t, saved.Get("saved_cmdlines").Addr+uint64(i*commLen), commLen)
				if err == nil && errs.Take() == nil {
					return s, true
				}
			}
			errs.Take()
		}
		s, ok := tasks[tid]
		return s, ok
	}
}
