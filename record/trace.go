package record

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/record/ctf"
	"github.com/fathom-trace/fathom/traceevent"
)

// Trace is a recording that was opened, of whatever format. One goroutine may use it.
type Trace struct {
	Name    string // of the file or folder
	Kind    string // "fathom", "CTF 1.8", "trace.dat 7", "perf.data", "packets" …
	Release string // of the kernel; "" if the recording does not tell
	Host    string
	ToReal  int64 // ns to add to the clock for the time since 1970; 0 if that is not known
	Formats []*traceevent.Format
	Env     traceevent.Env
	Tasks   *Tasks   // names; nil if nobody knows
	Account *Account // what the recorder said; nil if it said nothing
	// Notes are what a person should know of the recording: that it was not closed, that a file is cut off.
	Notes []string

	streams []traceevent.Stream
	cpus    int // the highest number and one
	rows    []Task
	symbols map[uint64]Symbol
	users   map[userKey][]userAt
	known   map[Event]*traceevent.Format // of a session's segments, each once
	files   []io.Closer
}

// ErrNoRecording says that a file is of no format that is known here.
var ErrNoRecording = errors.New("no recording")

// Open opens a recording: a folder of ours or with a CTF trace in it, or a file of trace-cmd, perf, or tcpdump. The caller closes it.
func Open(name string) (t *Trace, err error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	t = &Trace{Name: name}
	defer func() {
		if err != nil {
			t.Close()
			t = nil
		}
	}()
	if !st.IsDir() {
		return t, t.openFile(name, st.Size())
	}
	if _, err := os.Stat(filepath.Join(name, ownDir, metaFile)); err == nil {
		return t, errors.Join(t.openOwn(name), t.settle())
	}
	if _, err := os.Stat(filepath.Join(name, sessionFile)); err == nil {
		return t, t.openSession(name)
	}
	return t, t.openCTF(name)
}

// Close closes the files.
func (t *Trace) Close() error {
	var errs []error
	for _, f := range t.files {
		errs = append(errs, f.Close())
	}
	t.files = nil
	return errors.Join(errs...)
}

// Events merges all streams by time. It can be called once.
func (t *Trace) Events() traceevent.Stream { return traceevent.Merge(t.streams) }

// Streams are the streams one by one, most often one for each CPU, for those who need no order between them.
func (t *Trace) Streams() []traceevent.Stream { return t.streams }

// NumCPU is how many CPUs the recorded machine had, as far as the recording tells; at least 1.
func (t *Trace) NumCPU() int { return max(t.cpus, len(t.streams), 1) }

// file opens a file that stays open with the trace.
func (t *Trace) file(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	t.files = append(t.files, f)
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// openOwn opens a recording of ours, or a segment of one. Of one that was not closed, pages are read where there is no stream
// yet.
func (t *Trace) openOwn(dir string) error {
	own := filepath.Join(dir, ownDir)
	var m Meta
	if err := readJSON(filepath.Join(own, metaFile), &m); err != nil {
		return err
	}
	if m.Version != 1 {
		return fmt.Errorf("read recording: a layout of version %d, and this is version 1", m.Version)
	}
	t.Kind, t.Release, t.Host = "fathom", m.Release, m.Host
	if t.ToReal == 0 { // the clock is the same in all segments
		t.ToReal = m.ToReal
	}
	asked, err := t.ownFormats(m.Events)
	if err != nil {
		return err
	}
	h, err := traceevent.ParsePageHeader([]byte(m.Header))
	if err != nil {
		return err
	}
	t.ownAccount(dir)
	t.readNames(own)
	trace, err := t.ownMetadata(dir, asked)
	if err != nil {
		return err
	}
	for _, cpu := range m.CPUs {
		t.cpus = max(t.cpus, cpu+1)
		if trace != nil {
			if f, size, err := t.file(filepath.Join(dir, fmt.Sprintf("cpu%d", cpu))); err == nil {
				t.streams = append(t.streams, trace.Open(f, size, 0))
				continue
			}
		}
		f, _, err := t.file(filepath.Join(own, rawName(cpu)))
		if err != nil {
			t.Notes = append(t.Notes, fmt.Sprintf("CPU %d: %v", cpu, err))
			continue
		}
		t.streams = append(t.streams, traceevent.NewPages(f, cpu, h, asked))
	}
	return nil
}

// ownFormats parses formats; those that an earlier segment has, too, are the same.
func (t *Trace) ownFormats(events []Event) (out []*traceevent.Format, err error) {
	if t.known == nil {
		t.known = map[Event]*traceevent.Format{}
	}
	for _, e := range events {
		e.Filter = ""
		f := t.known[e]
		if f == nil {
			one, err := formats([]Event{e})
			if err != nil {
				return nil, err
			}
			f = one[0]
			t.known[e] = f
			t.Formats = append(t.Formats, f)
		}
		out = append(out, f)
	}
	return out, nil
}

// ownAccount reads what the recorder said at the end.
func (t *Trace) ownAccount(dir string) {
	var acc Account
	if err := readJSON(filepath.Join(dir, ownDir, accountFile), &acc); err != nil {
		which := "the recording"
		if dir != t.Name {
			which = filepath.Base(dir)
		}
		t.Notes = append(t.Notes, which+" was not closed: it goes on, or was killed; what was in the kernel's buffers is missing, at most the last second")
		return
	}
	if t.Account == nil {
		t.Account = &Account{Exact: true}
	}
	t.Account.Add(&acc)
}

// ownMetadata reads the metadata; nil if there is none yet.
func (t *Trace) ownMetadata(dir string, asked []*traceevent.Format) (*ctf.Trace, error) {
	b, err := os.ReadFile(filepath.Join(dir, "metadata"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := ctf.ParseMetadata(b)
	if err != nil {
		return nil, err
	}
	return ctf.NewTrace(m, asked)
}

// readNames reads the names of tasks and addresses, as far as they are there.
func (t *Trace) readNames(own string) {
	var rows []Task
	if err := readJSON(filepath.Join(own, tasksFile), &rows); err == nil {
		t.rows = append(t.rows, rows...)
	}
	t.readUsers(own)
	var syms []Symbol
	if err := readJSON(filepath.Join(own, symbolsFile), &syms); err == nil {
		if t.symbols == nil {
			t.symbols = map[uint64]Symbol{}
		}
		for _, s := range syms {
			t.symbols[s.Addr] = s
		}
	}
}

// settle makes the names that were read known.
func (t *Trace) settle() error {
	if t.rows != nil {
		t.Tasks = NewTasks(t.rows)
	}
	if by := t.symbols; by != nil {
		t.Env.Symbol = func(a uint64) (string, uint64, uint64, string, bool) {
			s, ok := by[a]
			return s.Name, s.Off, s.Size, s.Module, ok
		}
	}
	return nil
}

// maxTraces bounds how many traces one folder may hold.
const maxTraces = 256

// openCTF opens all traces in a folder and those below it, as LTTng makes them, and merges them.
func (t *Trace) openCTF(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && d.Name() == "metadata" && len(dirs) < maxTraces {
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return fmt.Errorf("%w: no file metadata in %s or below it", ErrNoRecording, dir)
	}
	t.Kind = "CTF"
	for i, d := range dirs {
		if err := t.addCTF(d, i == 0); err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
	}
	return nil
}

func (t *Trace) addCTF(dir string, first bool) error {
	b, err := os.ReadFile(filepath.Join(dir, "metadata"))
	if err != nil {
		return err
	}
	m, err := ctf.ParseMetadata(b)
	if err != nil {
		return err
	}
	trace, err := ctf.NewTrace(m, nil)
	if err != nil {
		return err
	}
	if first {
		t.Kind = "CTF " + m.Version
		t.ToReal, t.Release, t.Host = m.Clock.ToReal(), m.Env["kernel_release"], m.Env["hostname"]
	}
	t.Formats = append(t.Formats, trace.Formats...)
	ents, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	sorting.By(ents, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range ents {
		if e.IsDir() || e.Name() == "metadata" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		f, size, err := t.file(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		t.streams = append(t.streams, trace.Open(f, size, m.Clock.ToReal()-t.ToReal))
	}
	return nil
}

// openFile opens a recording that is one file, by its first bytes.
func (t *Trace) openFile(name string, size int64) error {
	f, _, err := t.file(name)
	if err != nil {
		return err
	}
	var magic [16]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, o := range openers {
		if strings.HasPrefix(string(magic[:n]), o.magic) {
			return o.open(t, f, size)
		}
	}
	if slices.ContainsFunc(packetMagics, func(m string) bool { return strings.HasPrefix(string(magic[:n]), m) }) {
		return t.openPackets(f, size)
	}
	return fmt.Errorf("%w: it begins with % x, as none that is known here", ErrNoRecording, magic[:min(n, 8)])
}
