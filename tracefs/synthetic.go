package tracefs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/lease"
)

// SyntheticKind is the kind of the leases of synthetic events; [CleanSynthetic] removes those whose owner is gone.
const SyntheticKind = "tracefs-synthetic"

// SyntheticSystem is the system that all synthetic events are in, whoever makes them.
const SyntheticSystem = "synthetic"

// synthetics is the file that they are made and removed by.
const synthetics = "synthetic_events"

// Synthetic is an event that actions of histograms make of others (Documentation/trace/histogram.rst, 2.2). Others see it;
// nobody but us enables it.
type Synthetic struct {
	Event
	fs    FS
	text  string
	lease *lease.Lease
}

// syntheticData is what a lease of a synthetic event tells.
type syntheticData struct {
	Text string `json:"text"`
}

// NewSynthetic makes an event, written as the kernel takes it: NAME TYPE FIELD[; TYPE FIELD]…. It belongs to the caller, who
// must Close it, after the instances whose triggers name it. The error is a *[ProbeError] if the kernel refuses it, and
// [fs.ErrExist] if somebody has an event of that name.
func (f FS) NewSynthetic(leases lease.Dir, text string) (*Synthetic, error) {
	text = strings.TrimSpace(text)
	name, fields, _ := strings.Cut(text, " ")
	if !identifier(name) || strings.TrimSpace(fields) == "" || strings.ContainsAny(text, "\n\x00") {
		return nil, fmt.Errorf("%q is no definition: NAME TYPE FIELD; TYPE FIELD…", text)
	}
	if missing(f.path(synthetics)) {
		return nil, feature.Unsupported("synthetic events", "open "+f.path(synthetics), unix.ENOENT)
	}
	if !missing(f.path("events/" + SyntheticSystem + "/" + name)) {
		return nil, fmt.Errorf("make event %s: %w", name, fs.ErrExist)
	}
	s := &Synthetic{Event: Event{SyntheticSystem, name}, fs: f, text: text}
	var err error
	if s.lease, err = leases.New(SyntheticKind, fmt.Sprintf("%s%d_%d", dynamicPrefix, os.Getpid(), dynamicSerial.Add(1)), syntheticData{text}); err != nil {
		return nil, err
	}
	if err := writeFile(f.path(synthetics), text); err != nil {
		var n unix.Errno
		if errors.As(err, &n) {
			err = n
		}
		return nil, errors.Join(&ProbeError{text, f.lastError(), err}, s.lease.Release())
	}
	return s, nil
}

func identifier(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != ""
}

// Close removes the event.
func (s *Synthetic) Close() error {
	if err := removeSynthetic(s.fs, s.text); err != nil {
		return err
	}
	return s.lease.Release()
}

// removeSynthetic removes an event, which the triggers that were the last to name it may keep for moments.
func removeSynthetic(f FS, text string) error {
	for deadline := time.Now().Add(busy); ; time.Sleep(10 * time.Millisecond) {
		err := writeFile(f.path(synthetics), "!"+text)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT): // or it is gone
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(deadline):
			return fmt.Errorf("remove synthetic event: %w", err)
		}
	}
}

// CleanSynthetic removes the event of a lease whose owner is gone.
func CleanSynthetic(r lease.Record) error {
	var d syntheticData
	err := json.Unmarshal(r.Data, &d)
	if name, _, _ := strings.Cut(d.Text, " "); err != nil || !identifier(name) || strings.ContainsAny(d.Text, "\n\x00") {
		return fmt.Errorf("synthetic event of %q: no definition of ours", r.Name)
	}
	f, err := Find()
	if err != nil {
		return err
	}
	defer f.Close()
	return removeSynthetic(f, d.Text)
}
