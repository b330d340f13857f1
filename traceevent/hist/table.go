// Package hist reads and writes the kernel's hist triggers: what they are to count, and the tables they have counted
// (Documentation/trace/histogram.rst, kernel/trace/trace_events_hist.c).
package hist

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Table is what one trigger has counted.
type Table struct {
	Trigger string // as the kernel writes it
	State   string // active, paused, disabled
	Entries []Entry
	Hits    uint64 // events counted
	Dropped uint64 // events with new keys for which there was no room
}

// Entry is one line of a table: keys and values as they are printed.
type Entry struct {
	Keys   []Item
	Values []Item // hitcount first, where it is not left out
}

// Item is a name and what was printed for it, or the lines of a stack.
type Item struct {
	Name  string
	Text  string
	Stack []string // "vfs_read+0x3c/0xa0 [module]"
}

// maxEntries bounds what is read: the kernel's tables have at most 131072 (TRACING_MAP_BITS_MAX).
const maxEntries = 1 << 17

// Parse reads an event's hist file: a table for each trigger.
func Parse(text string) ([]Table, error) {
	r := &reader{lines: strings.Split(text, "\n")}
	var out []Table
	for r.at < len(r.lines) {
		line := r.next()
		rest, ok := strings.CutPrefix(line, "# trigger info: ")
		if !ok {
			continue // "# event histogram", "#", and empty lines
		}
		t := Table{Trigger: rest}
		if i := strings.LastIndex(rest, " ["); i >= 0 && strings.HasSuffix(rest, "]") {
			t.Trigger, t.State = rest[:i], rest[i+2:len(rest)-1]
		}
		if err := r.table(&t); err != nil {
			return out, err
		}
		out = append(out, t)
	}
	return out, nil
}

type reader struct {
	lines []string
	at    int
}

func (r *reader) next() string {
	r.at++
	return r.lines[r.at-1]
}

func (r *reader) fail(format string, args ...any) error {
	return fmt.Errorf("histogram, line %d: %s", r.at, fmt.Sprintf(format, args...))
}

// table reads entries and totals.
func (r *reader) table(t *Table) error {
	totals := false
	for r.at < len(r.lines) {
		line := r.next()
		switch {
		case strings.HasPrefix(line, "{ "):
			e, err := r.entry(line[2:])
			if err != nil {
				return err
			}
			if t.Entries = append(t.Entries, e); len(t.Entries) > maxEntries {
				return r.fail("more than %d entries", maxEntries)
			}
		case strings.HasPrefix(line, "Totals:"):
			totals = true
		case totals && strings.HasPrefix(strings.TrimSpace(line), "Hits: "):
			t.Hits = number(line)
		case totals && strings.HasPrefix(strings.TrimSpace(line), "Dropped: "):
			t.Dropped = number(line)
		case strings.HasPrefix(line, "# event histogram"):
			r.at--
			return nil
		}
	}
	if !totals {
		return errors.New("histogram: it ends before its totals")
	}
	return nil
}

func number(line string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(line[strings.Index(line, ":")+1:]), 10, 64)
	return n
}

// entry reads keys up to their brace, then values. A stack is a key of several lines.
func (r *reader) entry(line string) (e Entry, err error) {
	for {
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			return e, r.fail("%q is no key", line)
		}
		k := Item{Name: strings.TrimSpace(name)}
		if strings.TrimSpace(rest) == "" { // a stack: its lines are indented, the next key or the brace is not
			for rest = "}"; r.at < len(r.lines); {
				l := r.next()
				if !strings.HasPrefix(l, "    ") {
					rest = strings.TrimPrefix(l, ", ")
					if rest != l {
						line = rest
						rest = ","
					}
					break
				}
				k.Stack = append(k.Stack, strings.TrimSpace(l))
			}
			e.Keys = append(e.Keys, k)
			if rest == "," {
				continue
			}
			return e, r.values(&e, strings.TrimPrefix(rest, "}"))
		}
		// The next key begins behind ", ", the values behind "}": texts may hold either, so both are looked for from the end.
		end := strings.LastIndex(rest, "}")
		if end < 0 {
			return e, r.fail("%q has no end", line)
		}
		if i := nextKey(rest[:end]); i >= 0 {
			k.Text, line = strings.TrimSpace(rest[:i]), rest[i+2:]
			e.Keys = append(e.Keys, k)
			continue
		}
		k.Text = strings.TrimSpace(rest[:end])
		e.Keys = append(e.Keys, k)
		return e, r.values(&e, rest[end+1:])
	}
}

// nextKey finds ", name:" in what follows a key's name; -1 if there is none.
func nextKey(s string) int {
	for i := 0; ; {
		n := strings.Index(s[i:], ", ")
		if n < 0 {
			return -1
		}
		i += n
		name, _, ok := strings.Cut(s[i+2:], ":")
		if ok && name != "" && strings.IndexFunc(name, notName) < 0 {
			return i
		}
		i += 2
	}
}

func notName(c rune) bool {
	return c != '_' && c != '.' && c != '$' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
}

// values reads "hitcount: 12  len: 340".
func (r *reader) values(e *Entry, line string) error {
	f := strings.Fields(line)
	for i := 0; i < len(f); {
		name := f[i]
		i++
		for !strings.HasSuffix(name, ":") && i < len(f) { // "len (%):"
			name += " " + f[i]
			i++
		}
		if !strings.HasSuffix(name, ":") || i == len(f) {
			return r.fail("%q are no values", line)
		}
		e.Values = append(e.Values, Item{Name: strings.TrimSuffix(name, ":"), Text: f[i]})
		i++
	}
	return nil
}
