package record

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/record/ctf"
	"github.com/fathom-trace/fathom/traceevent"
)

// symbolFunc names kernel addresses, as [traceevent.Env] wants it.
type symbolFunc = func(addr uint64) (name string, off, size uint64, module string, ok bool)

// Symbol is the name of an address that events tell: a row of DIR/fathom/symbols.json.
type Symbol struct {
	Addr   uint64 `json:"addr"`
	Name   string `json:"name"`
	Off    uint64 `json:"off,omitempty"`
	Size   uint64 `json:"size,omitempty"`
	Module string `json:"module,omitempty"`
}

// finisher makes a trace of the pages of a recording.
type finisher struct {
	dir, own string
	meta     *Meta
	header   traceevent.PageHeader
	asked    []*traceevent.Format
	all      []*traceevent.Format
	schema   *ctf.Schema
	tasks    *taskTable
	helpers  map[*traceevent.Format]*helperFormat
	wanted   map[*traceevent.Format]bool
	funcs    map[*traceevent.Format][]*traceevent.Field // that hold addresses of functions
	seen     map[uint64]bool
	users    *users // nil if stacks of programs are not recorded
	places   map[userPlace]bool
	acc      *Account
	how      how
}

// how is what a segment is in its recording.
type how struct {
	counted bool // the account has what the kernel counted, up to the end
	flight  bool // what came before the first event was overwritten on purpose
}

// finish makes the trace of a recording. Pages of a CPU are removed once its stream is whole, so that the recording can be
// read at any moment, whatever happens. acc has what the kernel counted.
func finish(dir string, meta *Meta, tasks *taskTable, symbol symbolFunc, users *users, acc *Account, how how) error {
	f := &finisher{dir: dir, own: filepath.Join(dir, ownDir), meta: meta, tasks: tasks, acc: acc, how: how, seen: map[uint64]bool{},
		users: users, places: map[userPlace]bool{},
		helpers: map[*traceevent.Format]*helperFormat{}, wanted: map[*traceevent.Format]bool{}, funcs: map[*traceevent.Format][]*traceevent.Field{}}
	if err := f.prepare(); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "metadata"), f.schema.Metadata()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "index"), 0o755); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	var errs []error
	acc.Exact = true
	for i := range acc.CPUs {
		if err := f.cpu(&acc.CPUs[i]); err != nil {
			errs = append(errs, err)
		}
	}
	f.sum()
	errs = append(errs, writeJSON(filepath.Join(f.own, tasksFile), tasks.settle()), writeJSON(filepath.Join(f.own, symbolsFile), f.symbols(symbol)),
		writeJSON(filepath.Join(f.own, accountFile), acc))
	if users != nil {
		errs = append(errs, writeJSON(filepath.Join(f.own, usersFile), f.table()))
	}
	for _, d := range []string{f.own, filepath.Join(dir, "index"), dir, filepath.Dir(dir)} { // names are safe, too
		errs = append(errs, syncDir(d))
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	defer d.Close()
	if err := unix.Fsync(int(d.Fd())); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}

func (f *finisher) prepare() (err error) {
	if f.header, err = traceevent.ParsePageHeader([]byte(f.meta.Header)); err != nil {
		return err
	}
	if f.asked, err = formats(f.meta.Events); err != nil {
		return err
	}
	help, err := formats(f.meta.Helpers)
	if err != nil {
		return err
	}
	f.all = f.asked
	for _, h := range help {
		if !hasID(f.asked, h.ID) {
			f.all = append(f.all, h)
		}
	}
	for _, a := range f.all {
		if h := newHelper(a); h != nil {
			f.helpers[a] = h
		}
	}
	for _, a := range f.asked {
		f.wanted[a] = true
		f.funcs[a] = addressFields(a)
	}
	env := [][2]string{{"domain", "kernel"}, {"tracer_name", "perf"}, {"tracer", "fathom"}, {"sysname", "Linux"}, {"hostname", f.meta.Host},
		{"kernel_release", f.meta.Release}, {"machine", f.meta.Machine}, {"trace_buffering_scheme", "global"}}
	f.schema, err = ctf.NewSchema([16]byte(f.meta.UUID), f.meta.ToReal, env, f.asked)
	if err == nil && len(f.meta.Boot) == 16 {
		f.schema.Clock = [16]byte(f.meta.Boot)
	}
	return err
}

func hasID(list []*traceevent.Format, id int) bool {
	for _, f := range list {
		if f.ID == id {
			return true
		}
	}
	return false
}

// addressFields are the fields that a print fmt names functions by: it has %pS or the like.
func addressFields(f *traceevent.Format) (out []*traceevent.Field) {
	if !strings.Contains(f.Print, "%ps") && !strings.Contains(f.Print, "%pS") && !strings.Contains(f.Print, "%pf") && !strings.Contains(f.Print, "%pF") && !strings.Contains(f.Print, "%pB") {
		return nil
	}
	for i := range f.Fields {
		if d := &f.Fields[i]; d.Size == 8 && !d.IsArray() || d.Name == "caller" && d.ElemSize() == 8 {
			out = append(out, d)
		}
	}
	return out
}

// kernelHalf is where addresses of the kernel begin, on the machines there are.
const kernelHalf = 1 << 63

// cpu makes the stream of one CPU and removes its pages.
func (f *finisher) cpu(a *CPUAccount) error {
	raw := filepath.Join(f.own, rawName(a.CPU))
	in, err := os.Open(raw)
	if err != nil {
		return fmt.Errorf("read recording: %w", err)
	}
	defer in.Close()
	name := "cpu" + strconv.Itoa(a.CPU)
	tmp := filepath.Join(f.own, name+".new")
	out, err := os.Create(tmp)
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	w := bufio.NewWriterSize(out, 1<<20)
	s := f.schema.NewStream(w, a.CPU)
	counted, gaps := *a, len(f.acc.Gaps)
	err = f.convert(traceevent.NewPages(in, a.CPU, f.header, f.all), s, a)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = unix.Fdatasync(int(out.Fd()))
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = writeFile(filepath.Join(f.dir, "index", name+".idx"), s.Index())
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(f.dir, name))
	}
	if err != nil {
		_ = os.Remove(tmp)
		*a, f.acc.Gaps = counted, f.acc.Gaps[:gaps]
		return errors.Join(fmt.Errorf("write stream of CPU %d: %w", a.CPU, err), f.recount(in, a))
	}
	return os.Remove(raw)
}

// recount counts what is in pages that stay as they are.
func (f *finisher) recount(in *os.File, a *CPUAccount) error {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read recording: %w", err)
	}
	return f.convert(traceevent.NewPages(in, a.CPU, f.header, f.all), f.schema.NewStream(io.Discard, a.CPU), a)
}

// convert writes the events of a CPU. What the kernel counted as lost beyond what its pages tell is in gaps of unknown size,
// and is counted at the end of the stream.
func (f *finisher) convert(in *traceevent.Pages, s *ctf.Stream, a *CPUAccount) error {
	var e traceevent.Event
	var missed uint64
	behind := false // a helper event, as its stack is
	for in.Next(&e) {
		if e.Format == nil && f.how.flight && e.Since == 0 {
			continue // counted as overwritten
		}
		if e.Format == nil {
			missed += e.Lost
			if len(f.acc.Gaps) < maxGaps {
				f.acc.Gaps = append(f.acc.Gaps, Gap{CPU: a.CPU, From: e.Since, To: e.Time, Count: e.Lost})
			}
			if err := s.Lost(e.Lost, e.Time); err != nil {
				return err
			}
			continue
		}
		if behind && e.Format.IsStack() {
			a.Helpers++
			continue
		}
		behind = false
		if h := f.helpers[e.Format]; h != nil {
			f.tasks.add(e.Time, h, e.Rec)
			if !f.wanted[e.Format] {
				a.Helpers++
				behind = true
				continue
			}
		}
		a.Events++
		for _, d := range f.funcs[e.Format] {
			f.see(d, e.Rec)
		}
		if f.users != nil && e.Format.IsUserStack() {
			f.seeUser(&e)
		}
		if err := s.Event(e.Time, e.Format.ID, e.Rec); err != nil {
			return err
		}
	}
	if in.Err() != nil && f.acc.Error == "" {
		f.acc.Error = in.Err().Error()
	}
	if a.Missed > missed {
		a.Unplaced = a.Missed - missed
		if err := s.Lost(a.Unplaced, e.Time); err != nil {
			return err
		}
	}
	a.Missed = missed + a.Unplaced
	return s.Close(e.Time)
}

// maxSeen bounds how many addresses are named.
const maxSeen = 1 << 20

// see remembers the addresses of functions in a field.
func (f *finisher) see(d *traceevent.Field, rec []byte) {
	b := d.Bytes(rec)
	for ; len(b) >= 8; b = b[8:] {
		if addr := binary.LittleEndian.Uint64(b); addr >= kernelHalf && addr != 1<<64-1 && len(f.seen) < maxSeen {
			f.seen[addr] = true
		}
	}
}

// sum adds up the account of all CPUs and compares it with what the kernel counted.
func (f *finisher) sum() {
	a := f.acc
	for i := range a.CPUs {
		c := &a.CPUs[i]
		if !f.how.counted {
			c.Written = c.Events + c.Helpers + c.Missed
		}
		if sum := c.Events + c.Helpers + c.Missed; a.Error != "" && c.Written > sum {
			c.Left = c.Written - sum
			a.Left += c.Left
		}
		a.Before += c.Before
		a.Written += c.Written
		a.Events += c.Events
		a.Helpers += c.Helpers
		a.Missed += c.Missed
		if c.Written != c.Events+c.Helpers+c.Missed+c.Left {
			a.Exact = false
		}
	}
}

// symbols names the addresses that were seen.
func (f *finisher) symbols(symbol symbolFunc) []Symbol {
	out := []Symbol{}
	if symbol == nil {
		return out
	}
	for addr := range f.seen {
		if name, off, size, mod, ok := symbol(addr); ok {
			out = append(out, Symbol{addr, name, off, size, mod})
		}
	}
	return out
}
