package tracefs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/lease"
)

// StackTracerKind is the kind of the leases of the stack tracer's settings; [CleanStackTracer] puts back those whose owner is gone.
const StackTracerKind = "stack-tracer"

// Files of the stack tracer (kernel/trace/trace_stack.c): the deepest stack, how deep it is, and the switch.
const (
	stackTrace  = "stack_trace"
	stackMax    = "stack_max_size"
	stackSwitch = "/proc/sys/kernel/stack_tracer_enabled"
)

// StackFrame is a frame of the deepest stack.
type StackFrame struct {
	Depth uint64 // bytes of stack in use, this frame's included
	Size  uint64 // bytes of the frame
	Name  string // function and offset, as the kernel writes them
}

// StackTracer is the kernel's stack tracer, which looks at the depth of the stack at every call of a function and keeps the
// deepest (since 2.6.28, CONFIG_STACK_TRACER). There is one for the whole kernel.
type StackTracer struct {
	fs    FS
	was   stackState
	lease *lease.Lease
}

// stackState is what is put back.
type stackState struct {
	Enabled string `json:"enabled"`
	Max     string `json:"max"`
}

// OpenStackTracer gives the kernel's stack tracer, or a [feature.ErrUnsupported]. Nothing is changed.
func (f FS) OpenStackTracer() (*StackTracer, error) {
	s := &StackTracer{fs: f}
	var err error
	for _, g := range []struct {
		name string
		to   *string
	}{{f.path(stackMax), &s.was.Max}, {stackSwitch, &s.was.Enabled}} {
		b, e := os.ReadFile(g.name)
		if e != nil {
			err = feature.Unsupported("stack tracer", "read "+g.name, e)
		}
		*g.to = strings.TrimSpace(string(b))
	}
	return s, err
}

// On says if somebody has it on.
func (s *StackTracer) On() bool { return s.was.Enabled != "0" }

// Start forgets the deepest stack, and switches the tracer on until Close. It is a setting of the whole machine: what it was is
// kept under a lease.
func (s *StackTracer) Start(leases lease.Dir) error {
	l, err := leases.Claim(StackTracerKind, "the stack tracer", s.was, nil)
	if err != nil {
		return err
	}
	s.lease = l
	if err = s.fs.setStackTracer(stackState{"1", "0"}); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// Close puts back what Start changed.
func (s *StackTracer) Close() error {
	if s.lease == nil {
		return nil
	}
	err := s.fs.setStackTracer(s.was)
	if err == nil {
		err = s.lease.Release()
	}
	s.lease = nil
	return err
}

// setStackTracer writes both settings, the switch last when it goes on.
func (f FS) setStackTracer(to stackState) error {
	files := [2][2]string{{f.path(stackMax), to.Max}, {stackSwitch, to.Enabled}}
	if to.Enabled == "0" { // else a deeper stack could come in between
		files[0], files[1] = files[1], files[0]
	}
	for _, w := range files {
		if err := os.WriteFile(w[0], []byte(w[1]), 0); err != nil {
			return fmt.Errorf("set the stack tracer: %w", err)
		}
	}
	return nil
}

// CleanStackTracer puts back the settings that a process which died changed.
func CleanStackTracer(r lease.Record) error {
	var was stackState
	err := json.Unmarshal(r.Data, &was)
	for _, n := range []string{was.Enabled, was.Max} {
		if _, nerr := strconv.ParseUint(n, 10, 64); err == nil {
			err = nerr
		}
	}
	if err != nil {
		return fmt.Errorf("read lease of the stack tracer: %w", err)
	}
	f, err := Find()
	if err != nil {
		return err
	}
	return errors.Join(f.setStackTracer(was), f.Close())
}

// Deepest reads the deepest stack so far, the innermost frame first; none if there was none.
func (s *StackTracer) Deepest() ([]StackFrame, error) {
	b, err := os.ReadFile(s.fs.path(stackTrace))
	if errors.Is(err, fs.ErrPermission) {
		return nil, feature.Unsupported("stack tracer", "read "+s.fs.path(stackTrace), err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the deepest stack: %w", err)
	}
	return ParseStackTrace(b)
}

// ParseStackTrace reads the text of stack_trace: a head, then lines "  0)     3616     176   name+0x1/0x30".
func ParseStackTrace(b []byte) (out []StackFrame, err error) {
	off := 0
	for line := range bytes.Lines(b) {
		at := off
		off += len(line)
		w := strings.Fields(string(line))
		if len(w) < 4 || !strings.HasSuffix(w[0], ")") || w[0] == ")" {
			continue
		}
		if _, err := strconv.Atoi(strings.TrimSuffix(w[0], ")")); err != nil {
			continue
		}
		depth, derr := strconv.ParseUint(w[1], 10, 64)
		size, serr := strconv.ParseUint(w[2], 10, 64)
		if derr != nil || serr != nil {
			return out, &bin.FormatError{What: "stack trace", Off: int64(at), Msg: "a frame without its depth and size"}
		}
		out = append(out, StackFrame{Depth: depth, Size: size, Name: strings.Join(w[3:], " ")})
	}
	return out, nil
}
