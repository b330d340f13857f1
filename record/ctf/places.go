package ctf

// places are where the fields of CTF 2 stand, by which others find them: the origin and the members' names on the way. Options of
// variants and elements of arrays stand where the variant and the array do.
type places struct {
	at    string   // of what is compiled
	outer []string // of the structures around it, the innermost last
	by    map[string]named
}

// origins are the scopes of 1.8 under their names in CTF 2.
var origins = map[string]string{
	"trace.packet.header": "packet-header", "stream.packet.context": "packet-context", "stream.event.header": "event-record-header",
	"stream.event.context": "event-record-common-context", "event.context": "event-record-specific-context", "event.fields": "event-record-payload",
}

// below is where a member of that name stands.
func below(at, name string) string { return at + "\x00" + name }

func (p *places) begin(scope string) { p.at, p.outer = origins[scope], nil }

// enter begins a structure; leave ends it.
func (p *places) enter() (at string) {
	p.outer = append(p.outer, p.at)
	return p.at
}

func (p *places) leave(at string) {
	p.outer = p.outer[:len(p.outer)-1]
	p.at = at
}

func (p *places) member(name string) { p.at = below(p.outer[len(p.outer)-1], name) }

// put says what stands here. Options of a variant that stand at one place share what is kept of them.
func (p *places) put(n named) (slot int) {
	if o, ok := p.by[p.at]; ok {
		n.slot = o.slot
	}
	p.by[p.at] = n
	return n.slot
}

// find is the field location procedure of the specification (6.4.2).
func (p *places) find(l *location) named {
	around := p.outer
	if l.Origin != "" {
		around = []string{l.Origin}
	}
	for i, name := range l.Path {
		switch {
		case len(around) == 0:
			fail(0, "a field location outside of all structures")
		case name == nil:
			around = around[:len(around)-1]
		case i == len(l.Path)-1:
			if n, ok := p.by[below(around[len(around)-1], *name)]; ok {
				return n
			}
			fail(0, "a reference to %s, which does not stand before", *name)
		default:
			around = append(around[:len(around):len(around)], below(around[len(around)-1], *name))
		}
	}
	fail(0, "a field location that leads to no field")
	return named{}
}
