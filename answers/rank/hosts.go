package rank

import "slices"

// HostKey is the key by which rows of several hosts are told apart.
const HostKey = "host"

// Hosts makes one table of those that several hosts counted, event by event.
type Hosts struct {
	by     []string // as it was asked, perhaps with HostKey
	tables []*Table
	same   []map[string]int
}

// NewHosts returns what adds up tables by keys.
func NewHosts(by []string) *Hosts { return &Hosts{by: by} }

// Asked is what the hosts themselves are to count by.
func (h *Hosts) Asked() []string {
	by := slices.DeleteFunc(slices.Clone(h.by), func(k string) bool { return k == HostKey })
	if len(by) == 0 {
		return []string{"cpu"} // every event has one, and it is not told
	}
	return by
}

// Add takes a table of a host.
func (h *Hosts) Add(host string, t *Table) {
	at := slices.Index(h.by, HostKey)
	alone := at >= 0 && len(h.by) == 1
	keys := func(keys []Cell) []Cell {
		switch {
		case alone:
			return []Cell{{Text: host}}
		case at >= 0 && at <= len(keys):
			return slices.Insert(slices.Clone(keys), at, Cell{Text: host})
		}
		return keys
	}
	i := slices.IndexFunc(h.tables, func(o *Table) bool { return o.Event == t.Event })
	if i < 0 {
		i = len(h.tables)
		sum := &Table{Event: t.Event, By: t.By, Sum: t.Sum, Engine: t.Engine, Order: t.Order}
		switch {
		case alone:
			sum.By = []string{HostKey}
		case at >= 0 && at <= len(t.By):
			sum.By = slices.Insert(slices.Clone(t.By), at, HostKey)
		}
		h.tables, h.same = append(h.tables, sum), append(h.same, map[string]int{})
	}
	sum := h.tables[i]
	for _, r := range t.Rows {
		sum.add(Row{Keys: keys(r.Keys), Hits: r.Hits, Sums: slices.Clone(r.Sums)}, h.same[i])
	}
	sum.Dropped, sum.Missed, sum.Faults = sum.Dropped+t.Dropped, sum.Missed+t.Missed, sum.Faults+t.Faults
	sum.Cut = max(sum.Cut, t.Cut)
	if sum.Engine != t.Engine {
		sum.Engine = "mixed"
	}
}

// Tables are the sums, in the order in which their events came first.
func (h *Hosts) Tables() []*Table { return h.tables }
