package traceevent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// listed is a stream of events that are there; each record is in the same memory.
type listed struct {
	events []Event
	buf    []byte
}

func (l *listed) Next(e *Event) bool {
	if len(l.events) == 0 {
		return false
	}
	*e = l.events[0]
	l.buf = append(l.buf[:0], e.Rec...)
	e.Rec = l.buf
	l.events = l.events[1:]
	return true
}

func (l *listed) Err() error { return errors.New("cut off") }

// TestWithStacks: each event comes with the stacks behind it, also where the stream writes over records; gaps have none, and a stack
// without its event stays an event.
func TestWithStacks(t *testing.T) {
	stack := func(name string) *Format {
		return &Format{System: "ftrace", Name: name, Fields: []Field{{Name: "tgid", Type: "unsigned int", Size: 4, ArrayLen: -1}, {Name: "caller", Type: "unsigned long", Offset: 8, ArrayLen: 0}}}
	}
	kernel, user, other := stack("kernel_stack"), stack("user_stack"), &Format{System: "a", Name: "b", Fields: []Field{{Name: "n", Type: "int", Size: 4, ArrayLen: -1}}}
	rec := func(first uint64, addrs ...uint64) []byte {
		b := binary.LittleEndian.AppendUint64(nil, first)
		for _, a := range addrs {
			b = binary.LittleEndian.AppendUint64(b, a)
		}
		return b
	}
	s := WithStacks(&listed{events: []Event{
		{Time: 1, Format: user, Rec: rec(5, 9)},
		{Time: 2, Format: other, Rec: rec(100)},
		{Time: 2, Format: kernel, Rec: rec(3, 10, 11, ^uint64(0), 12)},
		{Time: 2, Format: user, Rec: rec(77, 20, 21, 0)},
		{Time: 3, Format: other, Rec: rec(101)},
		{Time: 4, Lost: 7},
		{Time: 5, Format: kernel, Rec: rec(1, 13)},
		{Time: 6, Format: other, Rec: rec(102)},
		{Time: 6, Format: user, Rec: rec(78, 22)},
	}})
	var got []string
	for e := range All(s) {
		what := fmt.Sprintf("lost %d", e.Lost)
		if e.Format != nil {
			what = fmt.Sprintf("%s %d", e.Format.Name, e.Rec[0])
		}
		got = append(got, fmt.Sprintf("%d %s %v", e.Time, what, *e.Stacks))
	}
	want := []string{"1 user_stack 5 {[] [] 0}", "2 b 100 {[10 11] [20 21] 77}", "3 b 101 {[] [] 0}", "4 lost 7 {[] [] 0}", "5 kernel_stack 1 {[] [] 0}", "6 b 102 {[] [22] 78}"}
	if d := cmp.Diff(want, got); d != "" || s.Err() == nil {
		t.Error(d, s.Err())
	}
}
