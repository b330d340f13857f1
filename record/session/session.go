// Package session keeps recordings that outlive the command that began them. A session has a name and a keeper: a process
// of this program that records in the background and answers on a socket beside the leases. What it records is in segments,
// folders that can each be opened by themselves; [record.Open] opens the session's folder as a whole, whether the keeper
// lives or was killed.
package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/record"
)

// LeaseKind is the kind of the leases of sessions; [Clean] removes what is left of those whose keeper is gone.
const LeaseKind = "session"

// Spec is what a session is made with.
type Spec struct {
	Name string
	Dir  string // where segments go; absolute
	// Flight leaves events in the kernel's ring buffers until a snapshot is asked for.
	Flight   bool
	BufferKB int // of each CPU; 0 is the default
	Stacks   record.Stacks
	// A segment ends when its pages are of SegmentBytes, or after SegmentTime; 0 is never.
	SegmentBytes int64
	SegmentTime  time.Duration
	// The oldest segments are removed when there are more than Keep, or when all are larger than MaxBytes; 0 is never.
	Keep     int
	MaxBytes int64
	// When has a snapshot taken each time this event comes, After later.
	When   *record.Spec
	After  time.Duration
	Leases string // the folder of leases
}

// Status is how a session is.
type Status struct {
	Name     string        `json:"name"`
	Dir      string        `json:"dir"`
	State    string        `json:"state"` // created, waiting, recording, stopped, failed
	Flight   bool          `json:"flight,omitempty"`
	PID      int           `json:"pid"` // of the keeper
	Since    time.Time     `json:"since"`
	Events   []record.Spec `json:"events,omitempty"`  // as they were asked for
	Waiting  []string      `json:"waiting,omitempty"` // patterns that match no event as yet
	Kinds    int           `json:"kinds"`             // of events that are recorded
	Segments []Segment     `json:"segments,omitempty"`
	Removed  int           `json:"removed,omitempty"` // segments that the caps took
	Error    string        `json:"error,omitempty"`   // why it failed
}

// Segment is one segment of a session.
type Segment struct {
	Dir     string          `json:"dir"`
	Bytes   int64           `json:"bytes"`
	Account *record.Account `json:"account,omitempty"` // nil while it is recorded or made
	Error   string          `json:"error,omitempty"`
}

// Account adds up the accounts of all segments that are finished and still there.
func (s *Status) Account() *record.Account {
	sum := &record.Account{Exact: true}
	for _, g := range s.Segments {
		if a := g.Account; a != nil {
			sum.Add(a)
		}
	}
	return sum
}

// States of a session.
const (
	created   = "created"
	waiting   = "waiting" // started, and no event matches as yet
	recording = "recording"
	stopped   = "stopped"
	failed    = "failed"
)

// Operations that a keeper understands.
const (
	opStatus   = "status"
	opEnable   = "enable"
	opStart    = "start"
	opStop     = "stop"
	opRotate   = "rotate"
	opSnapshot = "snapshot"
	opDestroy  = "destroy"
)

// request is a line to a keeper, reply its answer.
type request struct {
	Op     string        `json:"op"`
	Events []record.Spec `json:"events,omitempty"`
}

type reply struct {
	Status Status `json:"status"`
	Error  string `json:"error,omitempty"`
}

// data is what the lease of a session tells.
type data struct {
	Dir    string `json:"dir"`
	Socket string `json:"socket"`
}

// CheckName says what is wrong with a name.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 64 && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "-")
	for _, c := range name {
		ok = ok && (c == '-' || c == '_' || c == '.' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z')
	}
	if !ok {
		return fmt.Errorf("session %q: a name is of letters, digits, - _ and ., at most 64", name)
	}
	return nil
}

// socketOf is where the keeper of a session answers.
func socketOf(leases, name string) string { return filepath.Join(leases, "session-"+name+".sock") }

// Clean removes the socket of a session whose keeper is gone. What it recorded stays.
func Clean(r lease.Record) error {
	var d data
	if err := json.Unmarshal(r.Data, &d); err != nil {
		return fmt.Errorf("session %s: %w", r.Name, err)
	}
	if filepath.Base(d.Socket) != "session-"+r.Name+".sock" {
		return fmt.Errorf("session %q: %s is no socket of it", r.Name, d.Socket)
	}
	if err := os.Remove(d.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
