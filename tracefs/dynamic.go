package tracefs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/lease"
)

// DynamicKind is the kind of the leases of dynamic events; [CleanDynamic] removes those whose owner is gone.
const DynamicKind = "tracefs-events"

// dynamicPrefix begins the names of the systems of our dynamic events.
const dynamicPrefix = "fathom_"

// Dynamic are events that we made of functions: kprobes and uprobes (Documentation/trace/kprobetrace.rst, uprobetracer.rst).
// They belong to a system of our own, which others see; nobody but us enables them.
type Dynamic struct {
	System string
	fs     FS
	lease  *lease.Lease
	names  map[string]bool
}

// dynamicSerial tells the systems of one process apart.
var dynamicSerial atomic.Uint64

// dynamicData is what a lease of dynamic events tells.
type dynamicData struct {
	System string `json:"system"`
}

// NewDynamic makes an empty system for events. It belongs to the caller, who must Close it, after the instances in which its
// events are enabled.
func (f FS) NewDynamic(leases lease.Dir) (*Dynamic, error) {
	d := &Dynamic{System: fmt.Sprintf("%s%d_%d", dynamicPrefix, os.Getpid(), dynamicSerial.Add(1)), fs: f, names: map[string]bool{}}
	var err error
	d.lease, err = leases.New(DynamicKind, d.System, dynamicData{d.System})
	return d, err
}

// ProbeError is an event that the kernel refused to make.
type ProbeError struct {
	Definition string
	Log        string // what the kernel says of it, with a caret; "" if nothing
	Err        error
}

func (e *ProbeError) Error() string { return fmt.Sprintf("make event %q: %v", e.Definition, e.Err) }
func (e *ProbeError) Unwrap() error { return e.Err }

// Add makes an event: kind is p or r (a function's entry or return), target a function of the kernel or PATH:0xOFFSET, args
// what the kernel calls fetch arguments. name is changed where it is no identifier, or taken.
func (d *Dynamic) Add(kind, name, target, args string) (Event, error) {
	name = d.free(name)
	e := Event{d.System, name}
	text := strings.TrimSpace(fmt.Sprintf("%s:%s/%s %s %s", kind, d.System, name, target, args))
	files := []string{"dynamic_events", "kprobe_events"} // the first since 5.0
	if strings.Contains(target, "/") {
		files[1] = "uprobe_events"
	}
	var err error
	for _, file := range files {
		err = writeFile(d.fs.path(file), text)
		switch {
		case err == nil:
			d.names[name] = true
			return e, nil
		case errors.Is(err, fs.ErrNotExist) && missing(d.fs.path(file)):
			continue
		}
		var n unix.Errno
		if errors.As(err, &n) {
			err = n
		}
		if errors.Is(err, unix.EINVAL) && d.kindUnknown(files[1]) {
			break
		}
		return e, &ProbeError{text, d.fs.lastError(), err}
	}
	return e, feature.Unsupported("events of "+strings.TrimSuffix(files[1], "_events")+"s", "write "+text+" to "+d.fs.path(files[1]), err)
}

func missing(name string) bool {
	_, err := os.Stat(name)
	return err != nil
}

// kindUnknown says if the kernel was built without probes of a kind: then dynamic_events refuses them as it does a mistake.
func (d *Dynamic) kindUnknown(file string) bool { return missing(d.fs.path(file)) }

// free gives an identifier that is not taken.
func (d *Dynamic) free(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9' || i == 0) {
			b[i] = '_'
		}
	}
	name = string(b[:min(len(b), 48)])
	for n, base := 2, name; d.names[name]; n++ {
		name = fmt.Sprintf("%s_%d", base, n)
	}
	return name
}

// lastError is what the kernel said of the last mistake in a definition.
func (f FS) lastError() string {
	all := f.Global("error_log")
	if i := strings.LastIndex(all, "error: "); i >= 0 {
		return strings.TrimSpace(all[i:])
	}
	return ""
}

// Close removes the events.
func (d *Dynamic) Close() error {
	if err := removeDynamic(d.fs, d.System); err != nil {
		return err
	}
	return d.lease.Release()
}

// removeDynamic removes all events of a system.
func removeDynamic(f FS, system string) error {
	var errs []error
	for _, file := range []string{"dynamic_events", "kprobe_events", "uprobe_events"} {
		b, err := os.ReadFile(f.path(file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			def, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if _, name, ok := strings.Cut(def, ":"); ok && strings.HasPrefix(name, system+"/") {
				errs = append(errs, writeFile(f.path(file), "-:"+name))
			}
		}
	}
	return errors.Join(errs...)
}

// CleanDynamic removes the events of a lease whose owner is gone.
func CleanDynamic(r lease.Record) error {
	var d dynamicData
	if err := json.Unmarshal(r.Data, &d); err != nil || d.System != r.Name || !strings.HasPrefix(r.Name, dynamicPrefix) || strings.ContainsAny(r.Name, "/ \n\x00") {
		return fmt.Errorf("events of system %q: no name of ours", r.Name)
	}
	f, err := Find()
	if err != nil {
		return err
	}
	defer f.Close()
	return removeDynamic(f, r.Name)
}
