package rank

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/traceevent/filter"
)

// Names names what a machine's addresses and numbers mean.
type Names interface {
	// KernelStack names frames, "function+0x1c", without those of who took the stack.
	KernelStack(addrs []uint64) []string
	UserStack(pid int, addrs []uint64) []string
	// KernelSymbol gives the symbol that an address is in.
	KernelSymbol(addr uint64) (name string, off uint64, ok bool)
	// Syscall names a system call.
	Syscall(nr uint64) (string, bool)
}

// Counter counts. It belongs to who made it, who must Close it.
type Counter interface {
	Begin() error // counts from now on
	End() error   // and no more
	Table() (*Table, error)
	Close() error
}

// bpfCounter counts by BPF programs.
type bpfCounter struct {
	q     *Query
	prog  *program
	sess  *probe.Session
	names Names
}

// NewBPF loads a query's programs; nothing is counted yet. It refuses what they cannot do.
func NewBPF(q *Query, w *probe.World, cpus int, names Names) (Counter, error) {
	var targets [][]probe.Target
	for _, e := range q.edges() {
		targets = append(targets, []probe.Target{target(e)})
		x, err := e.condition()
		if err != nil {
			return nil, err
		}
		if why := bpfRefuses(x, e.Format); why != "" {
			return nil, errors.New(why)
		}
	}
	for _, k := range q.By {
		if f := q.Format.Field(k.Field); f != nil && f.Common && f.Name != PID {
			return nil, fmt.Errorf("%s is not given to BPF programs", k.Field)
		}
	}
	p, err := write(q, cpus)
	if err != nil {
		return nil, err
	}
	sess, err := probe.LoadEmit(p.p, targets, probe.Options{World: w})
	if err != nil {
		return nil, err
	}
	return &bpfCounter{q, p, sess, names}, nil
}

func target(e Edge) probe.Target {
	return probe.Target{Provider: "tracepoint", Module: e.Event.System, Func: e.Event.Name, Name: "tracepoint:" + e.Event.System + ":" + e.Event.Name}
}

func (c *bpfCounter) Begin() error {
	_, err := c.sess.Attach()
	return err
}

func (c *bpfCounter) End() error   { c.sess.Detach(); return nil }
func (c *bpfCounter) Close() error { return c.sess.Close() }

func (c *bpfCounter) Table() (*Table, error) {
	t := newTable(c.q, "bpf")
	es, err := c.sess.Entries(c.prog.table)
	if err != nil {
		return nil, err
	}
	cols, _ := c.q.layout()
	same := map[string]int{} // rows by their keys as they are shown: different addresses may be one symbol
	for _, e := range es {
		row := Row{Sums: make([]int64, len(c.q.Sum))}
		for _, v := range e.Values { // of each CPU
			row.Hits += binary.LittleEndian.Uint64(v)
			for i := range row.Sums {
				row.Sums[i] += int64(binary.LittleEndian.Uint64(v[8+8*i:]))
			}
		}
		for _, col := range cols {
			cell, cut := col.cell(e.Key, c.names)
			row.Keys = append(row.Keys, cell)
			if cut {
				t.Cut = col.size / 8
			}
		}
		t.add(row, same)
	}
	for _, a := range c.sess.Accounts() {
		if a.Unit.Index == 0 {
			t.Dropped, t.Missed, t.Faults = a.LostMap, a.Missed, a.Faults
		}
	}
	return t, nil
}

// cell reads a key's value; cut is true of a stack that fills its room.
func (c *column) cell(key []byte, names Names) (v Cell, cut bool) {
	b := key[c.off:]
	n := binary.LittleEndian.Uint64(b)
	switch {
	case c.key.Field == KStack:
		addrs := addresses(b[8:8+c.size], n)
		return Cell{Stack: orNone(names.KernelStack(addrs))}, len(addrs) == c.size/8
	case c.key.Field == UStack:
		addrs := addresses(b[16:16+c.size], binary.LittleEndian.Uint64(b[8:]))
		return Cell{Stack: orNone(names.UserStack(int(n), addrs))}, len(addrs) == c.size/8
	case c.kind == filter.Comm || c.kind == filter.Text:
		text, _, _ := strings.Cut(string(b[:c.size]), "\x00")
		return Cell{Text: text}, false
	case c.key.Form == Execname:
		comm, _, _ := strings.Cut(string(b[8:8+commSize]), "\x00")
		return Cell{Text: fmt.Sprintf("%s [%d]", comm, n)}, false
	}
	return Cell{Text: numberText(c.key, n, c.signed, names)}, false
}

func orNone(s []string) []string {
	if len(s) == 0 {
		return []string{"(no stack)"}
	}
	return s
}

// addresses reads n bytes of addresses, as the helper said; a negative n is an error: none.
func addresses(b []byte, n uint64) (out []uint64) {
	if n > uint64(len(b)) {
		return nil
	}
	for i := 0; i+8 <= int(n); i += 8 {
		out = append(out, binary.LittleEndian.Uint64(b[i:]))
	}
	return out
}

// numberText writes a number in the key's form.
func numberText(k Key, n uint64, signed bool, names Names) string {
	switch k.Form {
	case Hex:
		return "0x" + strconv.FormatUint(n, 16)
	case Sym, SymOffset:
		name, off, ok := names.KernelSymbol(n)
		switch {
		case !ok:
			return "0x" + strconv.FormatUint(n, 16)
		case k.Form == Sym || off == 0:
			return name
		}
		return fmt.Sprintf("%s+0x%x", name, off)
	case Syscall:
		if name, ok := names.Syscall(n); ok {
			return name
		}
	case Log2:
		return fmt.Sprintf("~ 2^%d", n)
	case Buckets:
		return fmt.Sprintf("~ %d-%d", n, n+k.N-1)
	}
	if signed {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(n, 10)
}

func newTable(q *Query, engine string) *Table {
	t := &Table{Event: q.Event.System + ":" + q.Event.Name, Sum: q.Sum, Order: q.Order, Engine: engine}
	for _, k := range q.By {
		t.By = append(t.By, k.String())
	}
	return t
}

// add puts a row in, or to the row that shows the same keys.
func (t *Table) add(r Row, same map[string]int) {
	t.Hits += r.Hits
	var key strings.Builder
	for _, c := range r.Keys {
		key.WriteString(c.String())
		key.WriteByte(0)
	}
	i, ok := same[key.String()]
	if !ok {
		same[key.String()] = len(t.Rows)
		t.Rows = append(t.Rows, r)
		return
	}
	t.Rows[i].Hits += r.Hits
	for k, v := range r.Sums {
		t.Rows[i].Sums[k] += v
	}
}
