package record

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/record/ctf"
	"github.com/fathom-trace/fathom/traceevent"
)

// Export writes events of any recording as a recording of ours: a CTF trace with the formats and names beside it.
type Export struct {
	dir     string
	meta    *Meta
	tasks   *Tasks
	symbols []Symbol
	users   userTable
	schema  *ctf.Schema
	ids     map[*traceevent.Format]int
	streams map[int]*exportStream
	acc     Account
}

type exportStream struct {
	*ctf.Stream
	w    *bufio.Writer
	file *os.File
	last uint64
	acc  CPUAccount
}

// symbolRows are the names of addresses that stand beside a recording of ours.
func (t *Trace) symbolRows() []Symbol {
	out := []Symbol{}
	for _, s := range t.symbols {
		out = append(out, s)
	}
	sorting.By(out, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return out
}

// NewExport makes the folder dir, in which nothing may be, for events of these formats.
func NewExport(dir string, from *Trace, formats []*traceevent.Format) (*Export, error) {
	if ents, err := os.ReadDir(dir); err == nil && len(ents) > 0 {
		return nil, fmt.Errorf("export into %s: it is not empty", dir)
	}
	for _, d := range []string{ownDir, "index"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
	}
	x := &Export{dir: dir, tasks: from.Tasks, symbols: from.symbolRows(), users: from.userTable(), ids: map[*traceevent.Format]int{}, streams: map[int]*exportStream{}}
	x.meta = &Meta{Version: 1, Started: time.Unix(0, from.ToReal).UTC(), Host: from.Host, Release: from.Release, Clock: "mono", ToReal: from.ToReal, Header: pageHeader}
	used := map[int]bool{}
	var out []*traceevent.Format
	for _, f := range formats { // IDs of several recordings may be the same
		g := *f
		for used[g.ID] || g.ID < 0 || g.ID > 1<<16-1 {
			g.ID = (g.ID + 1) & (1<<16 - 1)
		}
		used[g.ID] = true
		x.ids[f] = g.ID
		out = append(out, &g)
		x.meta.Events = append(x.meta.Events, Event{System: g.System, Name: g.Name, Format: string(g.Append(nil))})
	}
	id, err := x.identity()
	if err != nil {
		return nil, err
	}
	x.meta.UUID = id
	env := [][2]string{{"domain", "kernel"}, {"tracer_name", "perf"}, {"tracer", "fathom"}, {"sysname", "Linux"}, {"hostname", from.Host}, {"kernel_release", from.Release}}
	if x.schema, err = ctf.NewSchema([16]byte(x.meta.UUID), from.ToReal, env, out); err != nil {
		return nil, err
	}
	return x, writeFile(filepath.Join(dir, "metadata"), x.schema.Metadata())
}

// identity makes the UUID: the same for what comes from the same recording, so that its export has the same bytes each time.
func (x *Export) identity() ([]byte, error) {
	b, err := json.Marshal([]any{x.meta, x.taskRows(), x.symbols, x.users})
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	sum := sha256.Sum256(b)
	return sum[:16], nil
}

// taskRows are the names of tasks, by task and time.
func (x *Export) taskRows() (rows []Task) {
	if x.tasks == nil {
		return nil
	}
	for _, tid := range slices.Sorted(maps.Keys(x.tasks.by)) {
		rows = append(rows, x.tasks.by[tid]...)
	}
	return rows
}

// pageHeader is what our own recordings say of ring buffer pages; an export has none.
const pageHeader = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n" +
	"\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n"

// Event adds an event.
func (x *Export) Event(e *traceevent.Event) error {
	s := x.streams[e.CPU]
	if s == nil {
		f, err := os.Create(filepath.Join(x.dir, "cpu"+strconv.Itoa(max(e.CPU, 0))))
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(f, 1<<20)
		s = &exportStream{Stream: x.schema.NewStream(w, max(e.CPU, 0)), w: w, file: f, acc: CPUAccount{CPU: max(e.CPU, 0)}}
		x.streams[e.CPU] = s
		x.meta.CPUs = append(x.meta.CPUs, max(e.CPU, 0))
	}
	s.last = e.Time
	if e.Format == nil {
		s.acc.Missed += e.Lost
		x.acc.Gaps = append(x.acc.Gaps, Gap{CPU: e.CPU, From: e.Since, To: e.Time, Count: e.Lost})
		return s.Lost(e.Lost, e.Time)
	}
	id, ok := x.ids[e.Format]
	if !ok {
		return nil
	}
	s.acc.Events++
	return s.Stream.Event(e.Time, id, e.Rec)
}

// Close ends the streams and writes what stands beside them.
func (x *Export) Close() error {
	var errs []error
	for _, cpu := range slices.Sorted(maps.Keys(x.streams)) {
		s := x.streams[cpu]
		errs = append(errs, s.Close(s.last), s.w.Flush(), s.file.Close(),
			writeFile(filepath.Join(x.dir, "index", filepath.Base(s.file.Name())+".idx"), s.Index()))
		s.acc.Written = s.acc.Events + s.acc.Missed
		x.acc.CPUs = append(x.acc.CPUs, s.acc)
		x.acc.Events += s.acc.Events
		x.acc.Missed += s.acc.Missed
		x.acc.Written += s.acc.Written
	}
	x.acc.Exact = true
	own := filepath.Join(x.dir, ownDir)
	errs = append(errs, writeJSON(filepath.Join(own, tasksFile), x.taskRows()), writeJSON(filepath.Join(own, symbolsFile), x.symbols), writeJSON(filepath.Join(own, usersFile), x.users), writeJSON(filepath.Join(own, metaFile), x.meta), writeJSON(filepath.Join(own, accountFile), x.acc))
	return errors.Join(errs...)
}
