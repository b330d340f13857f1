package traceevent

import (
	"encoding/binary"
	"slices"
)

// IsStack says if events of a format are the stack of the event before them on their CPU: what the kernel's options stacktrace and
// userstacktrace write. A gap's format, nil, is none.
func (f *Format) IsStack() bool {
	return f != nil && f.System == "ftrace" && (f.Name == "kernel_stack" || f.Name == "user_stack")
}

// IsUserStack says if it is the stack of a program.
func (f *Format) IsUserStack() bool { return f.IsStack() && f.Name == "user_stack" }

// Addresses reads a stack, the innermost first, up to the mark of its end.
func Addresses(b []byte) (out []uint64) {
	for ; len(b) >= 8; b = b[8:] {
		addr := binary.LittleEndian.Uint64(b)
		if addr == 0 || addr == ^uint64(0) {
			break
		}
		out = append(out, addr)
	}
	return out
}

// Stacks are the stacks of an event, the innermost frame first; empty if none was recorded.
type Stacks struct {
	Kernel, User []uint64
	Process      int // whose memory User is of; 0 without
}

// WithStacks gives each event of a stream with the stacks that stand behind it there. The stream must be that of one CPU.
func WithStacks(s Stream) Stream { return &stacked{s: s} }

// stacked reads one event ahead: what stands behind the last stack.
type stacked struct {
	s     Stream
	ahead Event
	begun bool
	more  bool // ahead is an event
	rec   []byte
}

// Next implements [Stream].
func (s *stacked) Next(e *Event) bool {
	if !s.begun {
		s.begun = true
		s.more = s.s.Next(&s.ahead)
	}
	if !s.more {
		return false
	}
	*e = s.ahead
	s.rec = append(s.rec[:0], e.Rec...) // the stream writes over it
	e.Rec, e.Stacks = s.rec, &Stacks{}
	for {
		s.more = s.s.Next(&s.ahead)
		if !s.more || !s.ahead.Format.IsStack() || e.Format == nil {
			return true
		}
		frames := Addresses(s.ahead.Format.Field("caller").Bytes(s.ahead.Rec))
		if s.ahead.Format.IsUserStack() {
			e.Stacks.User, e.Stacks.Process = slices.Concat(e.Stacks.User, frames), int(s.ahead.Format.Field("tgid").Uint(s.ahead.Rec))
		} else {
			e.Stacks.Kernel = slices.Concat(e.Stacks.Kernel, frames)
		}
	}
}

// Err implements [Stream].
func (s *stacked) Err() error { return s.s.Err() }
