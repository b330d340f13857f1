package walk

import (
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
)

// BPFObject is a program or a map of BPF.
type BPFObject struct {
	Map          bool
	ID           int
	Addr         uint64
	Type         string // in the words of enum bpf_prog_type and bpf_map_type: "SOCKET_FILTER"
	Name         string
	Instructions int // of a program
	Key, Value   int // bytes, of a map
	MaxEntries   uint64
}

// BPF reads the programs, then the maps.
func BPF(t kernel.Target) ([]BPFObject, error) {
	errs := &kernel.Errors{}
	progs, maps := names(t, "bpf_prog_type", "BPF_PROG_TYPE_"), names(t, "bpf_map_type", "BPF_MAP_TYPE_")
	var out []BPFObject
	prog, m := kernel.Object(t, errs, "struct bpf_prog", 0), kernel.Object(t, errs, "struct bpf_map", 0)
	for at := range XArray(kernel.Global(t, errs, "struct idr", "prog_idr").Get("idr_rt").Cast("struct xarray")) {
		v := prog.Shift(at)
		out = append(out, BPFObject{ID: v.Get("aux.id").Int(), Addr: at, Type: progs[v.Get("type").Uint()], Name: v.Get("aux.name").String(), Instructions: v.Get("len").Int()})
	}
	for at := range XArray(kernel.Global(t, errs, "struct idr", "map_idr").Get("idr_rt").Cast("struct xarray")) {
		v := m.Shift(at)
		out = append(out, BPFObject{Map: true, ID: v.Get("id").Int(), Addr: at, Type: maps[v.Get("map_type").Uint()], Name: v.Get("name").String(),
			Key: v.Get("key_size").Int(), Value: v.Get("value_size").Int(), MaxEntries: v.Get("max_entries").Uint()})
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk BPF objects: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// names are an enum's names without what they all begin with; of several for a value the first.
func names(t kernel.Target, enum, prefix string) map[uint64]string {
	out := map[uint64]string{}
	ty, err := t.Types().ByName(ctype.KindEnum, enum)
	e, ok := ty.(*ctype.Enum)
	if err != nil || !ok {
		return out
	}
	for _, v := range e.Values {
		if _, ok := out[uint64(v.Value)]; !ok && len(v.Name) > len(prefix) {
			out[uint64(v.Value)] = v.Name[len(prefix):]
		}
	}
	return out
}
