// Package rank answers which of many: events of the kernel, a condition, counted and summed by keys, the largest first. The
// counting is done in the kernel, by its own hist triggers in a tracing instance of ours where they exist, by BPF programs
// otherwise; both give the same table.
package rank

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
	"github.com/fathom-trace/fathom/traceevent/hist"
	"github.com/fathom-trace/fathom/tracefs"
)

// Query says what is to be counted.
type Query struct {
	Event  tracefs.Event
	Format *traceevent.Format
	If     string // condition, in the language of traceevent/filter; "" is none
	By     []Key
	Sum    []string // fields
	Size   int      // keys that are told apart at most; 0 is 2048
	From   []Edge   // events that open the window; without any it is open from the start
	Until  []Edge   // events that close it
	Open   bool     // the window is open from the start, with From, too
	Frames int      // of a stack; 0 is what the engine has: 16 or 64
	Order  []Order  // of the table's rows; none is by hits, the largest first
}

// Order is a column that rows are put in order by: a sum, a key, or hits, the largest first unless Ascending.
type Order struct {
	By        string // "" is hits
	Ascending bool
}

// Edge is an event, and a condition, at which counting begins or ends.
type Edge struct {
	Event  tracefs.Event
	Format *traceevent.Format
	If     string
}

// Form is how a key is grouped and written; the names are those of the kernel's modifiers.
type Form string

// Forms of keys.
const (
	Plain     Form = ""
	Hex       Form = "hex"
	Sym       Form = "sym"        // an address of the kernel as a symbol
	SymOffset Form = "sym-offset" // and how far in
	Syscall   Form = "syscall"    // a number of a system call as its name
	Execname  Form = "execname"   // common_pid with the task's name
	Log2      Form = "log2"       // powers of two
	Buckets   Form = "buckets"    // ranges of N
)

// Key is what events are told apart by.
type Key struct {
	Field string // of the event; or one of those that all events have
	Form  Form
	N     uint64 // of Buckets
}

// Keys that every event has.
const (
	KStack = "kstack"
	UStack = "ustack"
	Comm   = "comm"
	CPU    = "cpu"
	PID    = "common_pid" // of the thread, as the kernel's own histograms have it
)

// String gives the key as it is asked for.
func (k Key) String() string {
	s := k.Field
	if k.Form != Plain {
		s += "." + string(k.Form)
	}
	if k.Form == Buckets {
		s += "=" + strconv.FormatUint(k.N, 10)
	}
	return s
}

// aliases are other names of keys: the kernel's, and common ones.
var aliases = map[string]string{
	"stacktrace": KStack, "common_stacktrace": KStack, "stack": KStack, "common_comm": Comm, "common_cpu": CPU, "pid": PID, "tid": PID,
}

// ParseKey reads a key of an event: a field, or one of those all events have, with a form: len.log2, id.syscall.
func ParseKey(text string, f *traceevent.Format) (Key, error) {
	name, form, _ := strings.Cut(text, ".")
	k := Key{Field: name, Form: Form(form)}
	if n, ok := strings.CutPrefix(form, "buckets="); ok {
		v, err := strconv.ParseUint(n, 0, 64)
		if err != nil || v == 0 {
			return k, fmt.Errorf("key %s: %q is no size of a bucket", text, n)
		}
		k.Form, k.N = Buckets, v
	}
	if f.Field(name) == nil {
		if a, ok := aliases[name]; ok {
			k.Field = a
		}
	}
	kind, field, ok := filter.KindOf(f, k.Field)
	number := ok && (kind == filter.Number || kind == filter.CPU)
	switch {
	case k.Field == KStack || k.Field == UStack:
		number, ok = false, true
	case field != nil && !ok:
		return k, fmt.Errorf("key %s: %s is of type %s, neither a number nor a text", text, name, field.Type)
	case !ok:
		return k, fmt.Errorf("key %s: %s has no such field; it has %s; all events have kstack ustack comm pid cpu", text, f.Name, strings.Join(filter.Names(f), " "))
	}
	switch k.Form {
	case Plain:
		return k, nil
	case Hex, Sym, SymOffset, Syscall, Log2, Buckets:
		if number {
			return k, nil
		}
		return k, fmt.Errorf("key %s: %s is no number", text, name)
	case Execname:
		if k.Field == PID {
			return k, nil
		}
		return k, fmt.Errorf("key %s: execname is for common_pid", text)
	}
	return k, fmt.Errorf("key %s: forms are hex sym sym-offset syscall execname log2 buckets=N", text)
}

// Check holds a query against its events.
func (q *Query) Check() error {
	if len(q.By) == 0 {
		return errors.New("a key is missing: by what are events told apart?")
	}
	for _, s := range q.Sum {
		if k, _, ok := filter.KindOf(q.Format, s); !ok || k != filter.Number {
			return fmt.Errorf("sum %s: %s has no number of that name; it has %s", s, q.Event.Name, strings.Join(numbers(q.Format), " "))
		}
	}
	for _, e := range q.edges() {
		if _, err := e.condition(); err != nil {
			return err
		}
	}
	return nil
}

// condition reads and checks the edge's condition; nil if it has none.
func (e Edge) condition() (filter.Expr, error) {
	if e.If == "" {
		return nil, nil
	}
	x, err := filter.Parse(e.If)
	if err == nil {
		err = filter.Check(e.If, x, e.Format)
	}
	return x, err
}

// edges gives the event that is counted and those of the window, in the order in which programs are written for them.
func (q *Query) edges() []Edge {
	return append(append([]Edge{{q.Event, q.Format, q.If}}, q.From...), q.Until...)
}

func numbers(f *traceevent.Format) (out []string) {
	for _, n := range filter.Names(f) {
		if k, _, ok := filter.KindOf(f, n); ok && k == filter.Number {
			out = append(out, n)
		}
	}
	return out
}

// opens says if the window is open from the start.
func (q *Query) opens() bool { return q.Open || len(q.From) == 0 }

// size gives the keys that are told apart: a power of two, as the kernel rounds it.
func (q *Query) size() int {
	n := hist.MinSize
	for n < min(q.Size, hist.MaxSize) {
		n *= 2
	}
	if q.Size == 0 {
		return 2048
	}
	return n
}

// Table is what was counted.
type Table struct {
	Event   string
	By, Sum []string
	Rows    []Row
	Hits    uint64  // events in the rows
	Dropped uint64  // events whose keys found no room
	Missed  uint64  // events that came while one was being counted on their CPU: BPF only
	Faults  uint64  // reads that failed: BPF only
	Engine  string  // hist or bpf
	Cut     int     // frames at which stacks were cut; 0 if none was
	Order   []Order // what the query wants its rows in
}

// Row is one set of keys.
type Row struct {
	Keys []Cell
	Hits uint64
	Sums []int64
}

// Cell is one key's value: a text, or the frames of a stack, the innermost first.
type Cell struct {
	Text  string
	Stack []string
}

// String gives the value in one line.
func (c Cell) String() string {
	if c.Stack != nil {
		return strings.Join(c.Stack, ";")
	}
	return c.Text
}

// CheckOrder says if a table of the query can be put in that order: by hits, a sum or a key. The error names what there is.
func (q *Query) CheckOrder(order ...Order) error { return newTable(q, "").CheckOrder(order...) }

// CheckOrder says if the table has the columns of an order. The error names what there is.
func (t *Table) CheckOrder(order ...Order) error {
	all := slices.Concat([]string{"hits"}, t.Sum, t.By)
	for _, o := range order {
		if o.By != "" && !slices.Contains(all, o.By) {
			return fmt.Errorf("sort by %s: there are %s", o.By, strings.Join(all, " "))
		}
	}
	return nil
}

// Sort puts the rows in an order, whose columns the table must have; rows that are equal in that, by their keys. Without an
// order it is by hits, the largest first.
func (t *Table) Sort(order ...Order) {
	if len(order) == 0 {
		order = []Order{{}}
	}
	sorting.By(t.Rows, func(a, b Row) int {
		for _, o := range order {
			c := t.compare(o.By, a, b)
			if !o.Ascending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return slices.CompareFunc(a.Keys, b.Keys, compareCells)
	})
}

// compare holds two rows against each other in one column.
func (t *Table) compare(by string, a, b Row) int {
	if i := slices.Index(t.Sum, by); i >= 0 {
		return cmp.Compare(a.Sums[i], b.Sums[i])
	}
	if k := slices.Index(t.By, by); k >= 0 {
		return compareCells(a.Keys[k], b.Keys[k])
	}
	return cmp.Compare(a.Hits, b.Hits)
}

// compareCells puts numbers in the order of numbers and texts in that of texts.
func compareCells(a, b Cell) int {
	x, errX := strconv.ParseInt(a.Text, 0, 64)
	y, errY := strconv.ParseInt(b.Text, 0, 64)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a.String(), b.String())
}
