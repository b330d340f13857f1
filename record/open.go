package record

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/record/perfdata"
	"github.com/fathom-trace/fathom/record/tracedat"
	"github.com/fathom-trace/fathom/traceevent"
)

// openers are the formats of single files, by how they begin.
var openers = []struct {
	magic string
	open  func(t *Trace, r io.ReaderAt, size int64) error
}{{tracedat.Magic, (*Trace).openTraceDat}, {perfdata.Magic, (*Trace).openPerf}}

func (t *Trace) openTraceDat(r io.ReaderAt, size int64) error {
	f, err := tracedat.Open(r, size)
	if err != nil {
		return err
	}
	t.Kind = fmt.Sprintf("trace.dat %d", f.Version)
	t.Formats = f.Formats
	if w := strings.Fields(f.Uname); len(w) > 2 { // the order of uname(2)
		t.Host, t.Release = w[1], w[2]
	}
	for i := range f.Buffers {
		b := &f.Buffers[i]
		if b.Name != "" {
			t.Notes = append(t.Notes, fmt.Sprintf("the events of instance %s are among the others", b.Name))
		}
		for _, d := range b.Data {
			t.cpus = max(t.cpus, d.CPU+1)
			if d.Size > 0 {
				t.streams = append(t.streams, f.Stream(b, d))
			}
		}
	}
	for _, err := range f.Bad {
		t.Notes = append(t.Notes, err.Error())
	}
	t.Tasks = NewTasks(append(parseCmdlines(f.Cmdlines), Task{Comm: "<idle>"}))
	t.symbolTables(f.Kallsyms, f.Printk)
	return nil
}

// symbolTables names addresses by the texts of /proc/kallsyms and printk_formats, which are read when they are first needed.
func (t *Trace) symbolTables(syms, printk []byte) {
	table := sync.OnceValue(func() *kallsyms.Table {
		k, err := kallsyms.Parse(syms)
		if err != nil {
			return nil
		}
		return k
	})
	starts := sync.OnceValue(func() (out []uint64) {
		if k := table(); k != nil {
			for s := range k.Text() {
				out = append(out, s.Addr)
			}
		}
		return slices.Compact(out)
	})
	t.Env.Symbol = func(addr uint64) (string, uint64, uint64, string, bool) {
		k := table()
		if k == nil {
			return "", 0, 0, "", false
		}
		name, mod, off, ok := k.ByAddr(addr)
		size := uint64(0)
		if i, _ := slices.BinarySearch(starts(), addr+1); i < len(starts()) {
			size = starts()[i] - (addr - off)
		}
		return name, off, size, mod, ok
	}
	texts := sync.OnceValue(func() map[uint64]string { return parsePrintk(printk) })
	t.Env.Text = func(addr uint64) (string, bool) { s, ok := texts()[addr]; return s, ok }
}

// parsePrintk reads lines of `0xADDR : "TEXT"`.
func parsePrintk(b []byte) map[uint64]string {
	out := map[uint64]string{}
	for line := range bytes.Lines(b) {
		addr, text, ok := strings.Cut(string(line), " : ")
		n, err := strconv.ParseUint(strings.TrimSpace(addr), 0, 64)
		if !ok || err != nil {
			continue
		}
		text = strings.TrimSpace(text)
		if s, err := strconv.Unquote(text); err == nil {
			text = s
		}
		out[n] = text
	}
	return out
}

func (t *Trace) openPerf(r io.ReaderAt, size int64) error {
	f, err := perfdata.Open(r, size)
	if err != nil {
		return err
	}
	t.files = append(t.files, f)
	t.Kind, t.Release, t.Host, t.Formats = "perf.data", f.Release, f.Host, f.Formats
	var rows []Task
	names, err := f.Tasks()
	if err != nil {
		t.Notes = append(t.Notes, err.Error())
	}
	for _, n := range names {
		rows = append(rows, Task{Time: n.Time, TID: n.TID, TGID: n.PID, Comm: n.Comm})
	}
	t.Tasks = NewTasks(append(rows, Task{Comm: "swapper"}))
	t.symbolTables(f.Kallsyms, f.Printk)
	t.streams, t.cpus = []traceevent.Stream{f.Events()}, f.CPUs
	return nil
}
