package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fathom-trace/fathom/record"
)

// Segments is a recording of this process in segments: folders below the session's, each a recording by itself. One goroutine
// uses it, and calls Check many times a second.
type Segments struct {
	*record.Recorder
	spec     Spec
	number   int
	began    time.Time
	finisher *finisher
}

// NewSegments makes the folder spec.Dir and begins to record into its first segment. Of spec it heeds Dir, Name and what is said of
// segments; o.Dir is not heeded.
func NewSegments(spec Spec, o record.Options) (*Segments, error) {
	_, err := os.Stat(spec.Dir)
	made := err != nil
	if err := record.NewSession(spec.Dir, spec.Name); err != nil {
		return nil, err
	}
	names := Names{o.Symbol, o.Constant}.locked()
	o.Symbol, o.Constant = names.Symbol, names.Constant
	s := &Segments{spec: spec}
	o.Dir = s.next()
	if s.Recorder, err = record.Start(o); err != nil {
		if made { // else the folder was there, and is left
			os.RemoveAll(spec.Dir)
		}
		return nil, err
	}
	s.finisher, s.began = newFinisher(spec), time.Now()
	return s, nil
}

func (s *Segments) next() string {
	s.number++
	return filepath.Join(s.spec.Dir, fmt.Sprintf("segment-%04d", s.number))
}

// Check begins the next segment if it is time.
func (s *Segments) Check() error {
	if b := s.spec.SegmentBytes; (b == 0 || s.Bytes() < b) && (s.spec.SegmentTime == 0 || time.Since(s.began) < s.spec.SegmentTime) {
		return nil
	}
	seg, err := s.Rotate(s.next(), nil)
	if seg != nil {
		s.finisher.add(seg)
		s.began = time.Now()
	}
	return err
}

// Stop ends the recording, and finishes all segments. The account is that of all, of those too that were removed; removed is how many
// were.
func (s *Segments) Stop() (acc *record.Account, removed int, err error) {
	seg, err := s.End()
	if seg != nil {
		s.finisher.add(seg)
	}
	s.finisher.close()
	_, removed = s.finisher.list()
	if text := s.finisher.lastError(); text != "" && err == nil {
		err = errors.New(text)
	}
	return &s.finisher.total, removed, err
}
