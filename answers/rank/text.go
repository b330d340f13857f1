package rank

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

// Text writes the first top rows, all if top is 0: numbers first, stacks with a line for each frame.
func (t *Table) Text(w io.Writer, top int) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	rows, stacks := t.first(top), t.stacks()
	line := func(cells []string, last string) { fmt.Fprintf(tw, "%s\t  %s\n", strings.Join(cells, "\t"), last) }
	line(append([]string{"hits"}, t.Sum...), strings.Join(t.By, "  "))
	width := make([]int, len(t.By))
	for _, r := range rows {
		for i, k := range r.Keys {
			width[i] = max(width[i], len([]rune(k.Text)))
		}
	}
	for _, r := range rows {
		nums := []string{strconv.FormatUint(r.Hits, 10)}
		for _, s := range r.Sums {
			nums = append(nums, strconv.FormatInt(s, 10))
		}
		var keys []string
		var frames []string
		for i, k := range r.Keys {
			if k.Stack != nil {
				frames = append(frames, k.Stack...)
				continue
			}
			text := visible(k.Text)
			if i < len(r.Keys)-1 {
				text += strings.Repeat(" ", max(0, width[i]-len([]rune(k.Text))))
			}
			keys = append(keys, text)
		}
		if len(keys) == 0 && len(frames) > 0 {
			keys, frames = frames[:1], frames[1:]
		}
		line(nums, strings.Join(keys, "  "))
		for _, f := range frames {
			line(make([]string, len(nums)), f)
		}
		if stacks {
			line(make([]string, len(nums)), "")
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if left := len(t.Rows) - len(rows); left > 0 {
		_, err := fmt.Fprintf(w, "… %d rows more (--top 0 shows all)\n", left)
		return err
	}
	return nil
}

// visible writes control characters as escapes: texts come from the traced.
func visible(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

func (t *Table) stacks() bool {
	return slices.Contains(t.By, KStack) || slices.Contains(t.By, UStack)
}

func (t *Table) first(top int) []Row {
	if top > 0 && top < len(t.Rows) {
		return t.Rows[:top]
	}
	return t.Rows
}

// JSON writes an object for each row, and one for the account.
func (t *Table) JSON(w io.Writer, top int) error {
	enc := jsonl.NewEncoder(w)
	for _, r := range t.first(top) {
		keys, sums := map[string]any{}, map[string]int64{}
		for i, k := range r.Keys {
			if k.Stack != nil {
				keys[t.By[i]] = k.Stack
			} else {
				keys[t.By[i]] = k.Text
			}
		}
		for i, s := range r.Sums {
			sums[t.Sum[i]] = s
		}
		if err := enc.Encode(map[string]any{"type": "row", "event": t.Event, "keys": keys, "hits": r.Hits, "sums": sums}); err != nil {
			return err
		}
	}
	return enc.Encode(map[string]any{"type": "account", "event": t.Event, "engine": t.Engine, "rows": len(t.Rows), "hits": t.Hits, "dropped": t.Dropped,
		"missed": t.Missed, "faults": t.Faults})
}

// Folded writes a line for each row as flame graphs are made of: the stack from its root, other keys in front, and a number,
// which is the hits, or the sum of that name. The error says that there is none of it.
func (t *Table) Folded(w io.Writer, sum string) error {
	i := slices.Index(t.Sum, sum)
	if i < 0 && sum != "" && sum != "hits" {
		return fmt.Errorf("no sum %s", sum)
	}
	for _, r := range t.Rows {
		var parts []string
		for _, k := range r.Keys {
			if k.Stack == nil {
				parts = append(parts, clean(k.Text))
			}
		}
		for _, k := range r.Keys {
			for _, f := range slices.Backward(k.Stack) {
				name, _, _ := strings.Cut(f, "+0x")
				parts = append(parts, clean(name))
			}
		}
		n := int64(r.Hits)
		if i >= 0 {
			n = r.Sums[i]
		}
		if _, err := fmt.Fprintf(w, "%s %d\n", strings.Join(parts, ";"), n); err != nil {
			return err
		}
	}
	return nil
}

// clean takes from a name what parts of a line are divided by.
func clean(s string) string { return strings.NewReplacer(";", ":", "\n", " ").Replace(s) }

// Summary tells in a line what became of every event.
func (t *Table) Summary() string {
	s := fmt.Sprintf("%s: %s in %s, by %s", t.Event, count(t.Hits, "event"), count(uint64(len(t.Rows)), "row"), map[string]string{"hist": "hist triggers in an instance of our own", "bpf": "BPF programs", "mixed": "hist triggers on some hosts, BPF programs on others"}[t.Engine])
	if n := t.Lost(); n > 0 {
		s += fmt.Sprintf("; %d not counted (%d found no room in the table: --size; %d came while another was being counted)", n, t.Dropped, t.Missed)
	}
	if t.Cut > 0 {
		s += fmt.Sprintf("; stacks were cut at %d frames", t.Cut)
	}
	if t.Faults > 0 {
		s += fmt.Sprintf("; %d reads failed", t.Faults)
	}
	return s
}

func count(n uint64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// Lost counts the events that are in no row.
func (t *Table) Lost() uint64 { return t.Dropped + t.Missed }
