package record

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/traceevent"
)

// Names of files in a recording's folder.
const (
	ownDir      = "fathom" // what only we read
	metaFile    = "recording.json"
	accountFile = "account.json"
	tasksFile   = "tasks.json"
	symbolsFile = "symbols.json"
	usersFile   = "users.json"
)

// Meta is what a recording says of itself when it begins: DIR/fathom/recording.json.
type Meta struct {
	Version  int       `json:"version"` // of this layout: 1
	Started  time.Time `json:"started"`
	Host     string    `json:"host"`
	Release  string    `json:"release"`
	Machine  string    `json:"machine"`
	Clock    string    `json:"clock"`     // of the ring buffer: mono
	ToReal   int64     `json:"to_real"`   // ns to add to the clock for the time since 1970
	Header   string    `json:"header"`    // events/header_page
	CPUs     []int     `json:"cpus"`      // that were recorded
	BufferKB int       `json:"buffer_kb"` // of each
	UUID     []byte    `json:"uuid"`
	Boot     []byte    `json:"boot,omitempty"` // of the kernel: its clock is one for all recordings with the same
	Events   []Event   `json:"events"`
	Command  []string  `json:"command,omitempty"`
	// Helpers are events that were not asked for: they tell the names of tasks.
	Helpers []Event `json:"helpers,omitempty"`
}

// Event is an event of a recording.
type Event struct {
	System string `json:"system"`
	Name   string `json:"name"`
	Filter string `json:"filter,omitempty"` // as the kernel took it
	Format string `json:"format"`           // its format file

	group  string // the kernel's system of an event that we made; "" if it is System
	option string // of the instance, that has the kernel write it; "" if it is enabled by itself
}

// formats parses the events' formats.
func formats(events []Event) ([]*traceevent.Format, error) {
	var out []*traceevent.Format
	for _, e := range events {
		f, err := traceevent.Parse([]byte(e.Format))
		if err != nil {
			return nil, fmt.Errorf("format of %s:%s: %w", e.System, e.Name, err)
		}
		f.System = e.System
		out = append(out, f)
	}
	return out, nil
}

// Account says what became of all events: Written = Events + Helpers + Missed + Left, unless Exact is false.
type Account struct {
	Written uint64       `json:"written"`          // by the kernel, as it counted
	Events  uint64       `json:"events"`           // in the recording
	Helpers uint64       `json:"helpers"`          // that told the names of tasks, and are not in the recording
	Missed  uint64       `json:"missed"`           // overwritten before they could be read
	Before  uint64       `json:"before,omitempty"` // overwritten before a flight recorder's first event, and not among those written
	Left    uint64       `json:"left,omitempty"`   // not written to the disk, when the recording ended by itself
	Exact   bool         `json:"exact"`            // the kernel's count and ours agree
	CPUs    []CPUAccount `json:"cpus"`
	Gaps    []Gap        `json:"gaps,omitempty"`
	Error   string       `json:"error,omitempty"` // why the recording ended before it should
}

// Add adds another account, of the same recording or of another.
func (a *Account) Add(b *Account) {
	a.Written += b.Written
	a.Events += b.Events
	a.Helpers += b.Helpers
	a.Missed += b.Missed
	a.Before += b.Before
	a.Left += b.Left
	a.Exact = a.Exact && b.Exact
	for _, c := range b.CPUs {
		i := slices.IndexFunc(a.CPUs, func(d CPUAccount) bool { return d.CPU == c.CPU })
		if i < 0 {
			a.CPUs = append(a.CPUs, c)
			continue
		}
		d := &a.CPUs[i]
		d.Written += c.Written
		d.Events += c.Events
		d.Helpers += c.Helpers
		d.Missed += c.Missed
		d.Before += c.Before
		d.Left += c.Left
		d.Unplaced += c.Unplaced
	}
	a.Gaps = append(a.Gaps, b.Gaps[:min(len(b.Gaps), maxGaps-min(len(a.Gaps), maxGaps))]...)
	if a.Error == "" {
		a.Error = b.Error
	}
}

// CPUAccount is the part of one CPU.
type CPUAccount struct {
	CPU     int    `json:"cpu"`
	Written uint64 `json:"written"`
	Events  uint64 `json:"events"`
	Helpers uint64 `json:"helpers"`
	Missed  uint64 `json:"missed"`
	Before  uint64 `json:"before,omitempty"`
	Left    uint64 `json:"left,omitempty"`
	// Unplaced are missed events of gaps that the kernel did not count one by one.
	Unplaced uint64 `json:"unplaced,omitempty"`
}

// Gap is a place where events are missing.
type Gap struct {
	CPU   int    `json:"cpu"`
	From  uint64 `json:"from"` // time of the event before, in the recording's clock; 0 if there is none
	To    uint64 `json:"to"`   // of the event after
	Count uint64 `json:"count,omitempty"`
}

// bootID is the kernel's own name of this boot (/proc/sys/kernel/random/boot_id); nil if it has none.
func bootID() []byte {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(b) != 16 {
		return nil
	}
	return b
}

// maxGaps bounds the list of gaps in an account; their number is not bounded in the trace itself.
const maxGaps = 10000

// writeJSON writes a value to a file, whole or not at all.
func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(name), err)
	}
	return writeFile(name, append(b, '\n'))
}

// writeFile writes a file under another name and renames it.
func writeFile(name string, b []byte) error {
	tmp := name + ".new"
	f, err := os.Create(tmp)
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read recording: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
