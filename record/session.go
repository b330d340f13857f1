package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// sessionFile marks the folder of a session, which has a folder for each of its segments.
const sessionFile = "session.json"

// sessionMeta is what a session says of itself.
type sessionMeta struct {
	Version int       `json:"version"` // of this layout: 1
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// NewSession makes the folder of a session, in which nothing may be.
func NewSession(dir, name string) error {
	if ents, err := os.ReadDir(dir); err == nil && len(ents) > 0 {
		return fmt.Errorf("record into %s: %w", dir, ErrRecorded)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make session: %w", err)
	}
	return writeJSON(filepath.Join(dir, sessionFile), sessionMeta{1, name, time.Now()})
}

// openSession opens all segments of a session as one.
func (t *Trace) openSession(dir string) error {
	dirs, err := filepath.Glob(filepath.Join(dir, "*", ownDir, metaFile)) // sorted
	if err != nil {
		return err
	}
	for _, name := range dirs {
		seg := filepath.Dir(filepath.Dir(name))
		if err := t.openOwn(seg); errors.Is(err, os.ErrNotExist) { // a cap took it meanwhile
			continue
		} else if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(seg), err)
		}
	}
	if len(t.streams) == 0 {
		return fmt.Errorf("%w: the session has recorded nothing as yet", ErrNoRecording)
	}
	return t.settle()
}
