package rank

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHosts(t *testing.T) {
	table := func(rows ...Row) *Table {
		tab := &Table{Event: "s:e", By: []string{"comm"}, Sum: []string{"len"}, Engine: "bpf", Dropped: 1}
		for _, r := range rows {
			tab.Hits += r.Hits
			tab.Rows = append(tab.Rows, r)
		}
		return tab
	}
	row := func(comm string, hits uint64, sum int64) Row {
		return Row{Keys: []Cell{{Text: comm}}, Hits: hits, Sums: []int64{sum}}
	}
	for _, c := range []struct {
		by    []string
		asked []string
		want  string
	}{
		{[]string{"comm"}, []string{"comm"}, "  hits  len  comm\n     8   80  x\n     2   20  y\n     1   10  z\n"},
		{[]string{"comm", "host"}, []string{"comm"}, "  hits  len  comm  host\n     5   50  x  b\n     3   30  x  a\n     2   20  y  a\n     1   10  z  b\n"},
		{[]string{"host"}, []string{"cpu"}, "  hits  len  host\n     6   60  b\n     5   50  a\n"},
	} {
		h := NewHosts(c.by)
		if diff := cmp.Diff(c.asked, h.Asked()); diff != "" {
			t.Errorf("by %v: asked (-want +got)\n%s", c.by, diff)
		}
		h.Add("a", table(row("x", 3, 30), row("y", 2, 20)))
		h.Add("b", table(row("x", 5, 50), row("z", 1, 10)))
		if len(h.Tables()) != 1 {
			t.Fatalf("by %v: %d tables", c.by, len(h.Tables()))
		}
		tab := h.Tables()[0]
		tab.Sort()
		var b bytes.Buffer
		if err := tab.Text(&b, 0); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("by %v (-want +got)\n%s", c.by, diff)
		}
		if tab.Hits != 11 || tab.Dropped != 2 {
			t.Errorf("by %v: %d hits, %d dropped", c.by, tab.Hits, tab.Dropped)
		}
	}
}
