package view

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// eights is words of eight bytes, as maps have them.
func eights(ns ...uint64) (b []byte) {
	for _, n := range ns {
		b = le.AppendUint64(b, n)
	}
	return b
}

// TestPool: maps of two hosts become one where that has a meaning.
func TestPool(t *testing.T) {
	value := func(k types.Kind) *types.Type { return &types.Type{Kind: k, Size: 8, Signed: true} }
	key := &types.Type{Kind: types.Int, Size: 8}
	one := func(k types.Kind, vs ...[]byte) (*ir.Map, []Entry) {
		return &ir.Map{Name: "@x", Value: value(k)}, []Entry{{Values: vs}}
	}
	type host struct {
		m  *ir.Map
		es []Entry
	}
	of := func(m *ir.Map, es []Entry) host { return host{m, es} }
	keyed := func(es ...Entry) host {
		return host{&ir.Map{Name: "@x", Key: key, KeySize: 8, Value: value(types.Count)}, es}
	}
	hist := func(buckets ...uint64) host {
		h := host{m: &ir.Map{Name: "@x", Value: value(types.Hist), Bucketed: true}}
		for _, b := range buckets {
			h.es = append(h.es, Entry{Key: eights(b), Values: [][]byte{eights(1)}})
		}
		return h
	}
	for _, c := range []struct {
		name       string
		a, b       host
		text, json string
	}{
		{"count", of(one(types.Count, eights(1), eights(2))), of(one(types.Count, eights(4))), "@x: 7\n", `{"type": "map", "data": {"@x": 7}}` + "\n"},
		{"min", of(one(types.Min, eights(5, 1))), of(one(types.Min, eights(3, 1))), "@x: 3\n", `{"type": "map", "data": {"@x": 3}}` + "\n"},
		{"min of one", of(one(types.Min, eights(5, 1))), of(one(types.Min, eights(0, 0))), "@x: 5\n", `{"type": "map", "data": {"@x": 5}}` + "\n"},
		{"max", of(one(types.Max, eights(5, 1))), of(one(types.Max, eights(9, 1))), "@x: 9\n", `{"type": "map", "data": {"@x": 9}}` + "\n"},
		{"avg", of(one(types.Avg, eights(10, 1))), of(one(types.Avg, eights(50, 2))), "@x: 20\n", `{"type": "stats", "data": {"@x": 20}}` + "\n"},
		{"keys", keyed(Entry{eights(1), [][]byte{eights(3)}}, Entry{eights(2), [][]byte{eights(9)}}), keyed(Entry{eights(1), [][]byte{eights(8)}}),
			"@x[2]: 9\n@x[1]: 11\n", `{"type": "map", "data": {"@x": {"2": 9, "1": 11}}}` + "\n"},
		{"hist", hist(1, 2), hist(2), "", `{"type": "hist", "data": {"@x": [{"min": 0, "max": 0, "count": 1},{"min": 1, "max": 1, "count": 2}]}}` + "\n"},
		{"values", of(one(types.Int, eights(1))), of(one(types.Int, eights(2))), "a: @x: 1\nb: @x: 2\n",
			`{"type": "map", "host": "a", "data": {"@x": 1}}` + "\n" + `{"type": "map", "host": "b", "data": {"@x": 2}}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Pool
			for i, h := range []host{c.a, c.b} {
				var line bytes.Buffer
				if err := New(Options{W: &line, Program: &ir.Program{}, JSON: true}).Portable(h.m, h.es, false); err != nil {
					t.Fatal(err)
				}
				var m Portable
				if err := json.Unmarshal(line.Bytes(), &m); err != nil {
					t.Fatalf("%s: %v", line.String(), err)
				}
				p.Add(string(rune('a'+i)), &m)
			}
			var text, asJSON bytes.Buffer
			if err := p.Write(&text, false); err != nil {
				t.Fatal(err)
			}
			if err := p.Write(&asJSON, true); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.text, text.String()); diff != "" && c.text != "" {
				t.Errorf("text (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(c.json, asJSON.String()); diff != "" {
				t.Errorf("JSON (-want +got)\n%s", diff)
			}
		})
	}
}
