package flame

import (
	"encoding/binary"
	"io"
)

// Field numbers of profile.proto (github.com/google/pprof/proto), of which a profile by names needs these.
const (
	profileType     = 1
	profileSample   = 2
	profileLocation = 4
	profileFunction = 5
	profileString   = 6
	typeType        = 1
	typeUnit        = 2
	sampleLocation  = 1
	sampleValue     = 2
	locationID      = 1
	locationLine    = 4
	lineFunction    = 1
	functionID      = 1
	functionName    = 2
)

// Pprof writes the graph as a profile, uncompressed: go tool pprof reads it.
func (g *Graph) Pprof(w io.Writer) error {
	p := profile{strings: map[string]uint64{"": 0}, locations: map[string]uint64{}}
	p.out = blob(p.out, profileString, nil)
	typ := varint(nil, typeType, p.string(g.Unit))
	p.out = blob(p.out, profileType, varint(typ, typeUnit, p.string("count")))
	p.samples(&g.root, nil)
	_, err := w.Write(p.out)
	return err
}

type profile struct {
	out       []byte
	strings   map[string]uint64
	locations map[string]uint64
}

// samples writes the stacks below a frame; stack has the locations down to it, from the root.
func (p *profile) samples(n *node, stack []uint64) {
	for _, k := range n.sorted() {
		at := append(stack, p.location(k.name))
		if k.self != 0 {
			var ids []byte
			for i := len(at) - 1; i >= 0; i-- { // the innermost first
				ids = binary.AppendUvarint(ids, at[i])
			}
			s := blob(nil, sampleLocation, ids)
			p.out = blob(p.out, profileSample, blob(s, sampleValue, binary.AppendUvarint(nil, uint64(k.self))))
		}
		p.samples(k, at)
	}
}

// location gives the number of a frame; each name is a function with one location.
func (p *profile) location(name string) uint64 {
	if id, ok := p.locations[name]; ok {
		return id
	}
	id := uint64(len(p.locations) + 1)
	p.locations[name] = id
	f := varint(nil, functionID, id)
	p.out = blob(p.out, profileFunction, varint(f, functionName, p.string(name)))
	l := varint(nil, locationID, id)
	p.out = blob(p.out, profileLocation, blob(l, locationLine, varint(nil, lineFunction, id)))
	return id
}

// string gives the number of a text.
func (p *profile) string(s string) uint64 {
	if id, ok := p.strings[s]; ok {
		return id
	}
	id := uint64(len(p.strings))
	p.strings[s] = id
	p.out = blob(p.out, profileString, []byte(s))
	return id
}

func varint(b []byte, field int, v uint64) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3)
	return binary.AppendUvarint(b, v)
}

func blob(b []byte, field int, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}
