package spec

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// limits keep a text from asking for more than a machine has.
const (
	maxText  = 1 << 20
	maxNodes = 1024
)

// Parse reads a topology and checks it. An error is an *[Error].
func Parse(text string) (*Topology, error) {
	if len(text) > maxText {
		return nil, &Error{Pos: Pos{1, 1}, Msg: fmt.Sprintf("over %d bytes", maxText)}
	}
	toks, err := scan(text)
	if err != nil {
		return nil, err
	}
	p := &parser{toks: toks, t: &Topology{}}
	if err := p.file(); err != nil {
		return nil, err
	}
	if err := p.t.finish(); err != nil {
		return nil, err
	}
	return p.t, nil
}

type parser struct {
	toks []token
	t    *Topology
}

func (p *parser) peek() token { return p.toks[0] }

func (p *parser) atEnd() bool { return len(p.toks) == 1 }

// take gives the next token; the one at the end is never used up.
func (p *parser) take() token {
	t := p.toks[0]
	if !p.atEnd() {
		p.toks = p.toks[1:]
	}
	return t
}

func (p *parser) file() error {
	for !p.atEnd() {
		if p.peek().is(";") {
			p.take()
			continue
		}
		var err error
		if k, ok := kinds[p.peek().text]; ok && len(p.toks) > 2 && !p.toks[1].is("--") {
			p.take()
			err = p.node(k)
		} else {
			err = p.chain()
		}
		if err != nil {
			return err
		}
		if t := p.peek(); !p.atEnd() && !t.is(";") {
			return &Error{t.pos, fmt.Sprintf("unexpected %q", t.text), "-- joins two hosts, ; ends a statement"}
		}
	}
	if len(p.t.Nodes) == 0 {
		return &Error{p.peek().pos, "no host is named", "a:10.0.0.1/24 -- b:10.0.0.2/24"}
	}
	return nil
}

var kinds = map[string]Kind{"host": Host, "router": Router, "bridge": Bridge}

// name gives the node of a name, made if it is new.
func (p *parser) name(t token) (*Node, error) {
	if err := validName(t.pos, "name", t.text, 32); err != nil {
		return nil, err
	}
	if n := p.t.Node(t.text); n != nil {
		return n, nil
	}
	if len(p.t.Nodes) == maxNodes {
		return nil, &Error{Pos: t.pos, Msg: fmt.Sprintf("over %d hosts", maxNodes)}
	}
	n := &Node{Name: t.text, Pos: t.pos}
	p.t.Nodes = append(p.t.Nodes, n)
	return n, nil
}

// validName accepts letters, digits, _ and -, and a dot or @ inside: what is safe in a file name and in a device's.
func validName(pos Pos, what, s string, most int) error {
	bad := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-.", r)
	})
	if s == "" || bad >= 0 || len(s) > most || strings.HasPrefix(s, "-") || strings.HasPrefix(s, ".") {
		return &Error{pos, fmt.Sprintf("%q is no %s", s, what), fmt.Sprintf("a %s has up to %d letters, digits, _ - and dots, and begins with none of - and .", what, most)}
	}
	return nil
}

func (p *parser) chain() error {
	left, first, err := p.end()
	if err != nil {
		return err
	}
	if !p.peek().is("--") {
		if first {
			return nil // a host without a link
		}
		return &Error{p.peek().pos, "an end without a link", "-- joins it to another host"}
	}
	for p.peek().is("--") {
		dashes := p.take()
		right, _, err := p.end()
		if err != nil {
			return err
		}
		if right.Node == left.Node {
			return &Error{dashes.pos, fmt.Sprintf("%s is linked to itself: a loop", left.Node.Name), ""}
		}
		p.t.Links = append(p.t.Links, Link{left, right})
		left.Node.Ifaces = append(left.Node.Ifaces, left)
		right.Node.Ifaces = append(right.Node.Ifaces, right)
		if !p.peek().is("--") {
			return nil
		}
		if len(right.Addrs) > 0 || right.Dev != "" || right.MAC != nil {
			return &Error{right.Pos, fmt.Sprintf("%s has two links here, and its address or name can be that of one only", right.Node.Name), "write two statements: a -- r:10.0.0.1/24; r:10.0.1.1/24 -- b"}
		}
		next := *right
		left = &next
	}
	return nil
}

// end reads one end of a link; bare says that there is nothing but its name.
func (p *parser) end() (i *Iface, bare bool, err error) {
	t := p.take()
	name, addrs, _ := strings.Cut(t.text, ":")
	nt := t
	nt.text = name
	i = &Iface{Pos: t.pos}
	if i.Node, err = p.name(nt); err != nil {
		return nil, false, err
	}
	if strings.Contains(t.text, ":") {
		at := Pos{t.pos.Line, t.pos.Col + len(name) + 1}
		if i.Addrs, err = prefixes(at, addrs); err != nil {
			return nil, false, err
		}
	}
	if !p.peek().is("{") {
		return i, len(i.Addrs) == 0, nil
	}
	return i, false, p.options(i)
}

// options reads { key=value … }.
func (p *parser) options(i *Iface) error {
	open := p.take()
	for {
		t := p.take()
		switch {
		case t.is("}"):
			return nil
		case t.is(";"):
			continue
		case t.text == "" && p.atEnd():
			return &Error{Pos: open.pos, Msg: "{ without }"}
		}
		key, val, ok := strings.Cut(t.text, "=")
		set := endKeys[key]
		switch {
		case set == nil:
			return unknown(t.pos, key, slices.Sorted(maps.Keys(endKeys)))
		case !ok:
			return &Error{t.pos, key + " has no value", key + "=…"}
		}
		if err := set(i, val); err != nil {
			return &Error{Pos: Pos{t.pos.Line, t.pos.Col + len(key) + 1}, Msg: key + ": " + err.Error()}
		}
	}
}

func unknown(pos Pos, key string, known []string) error {
	return &Error{pos, fmt.Sprintf("unknown key %q", key), "known keys: " + strings.Join(known, " ")}
}

// node reads a declaration.
func (p *parser) node(k Kind) error {
	t := p.take()
	n, err := p.name(t)
	if err != nil {
		return err
	}
	if n.declared {
		return &Error{Pos: t.pos, Msg: fmt.Sprintf("%s is declared twice", n.Name)}
	}
	n.declared, n.Kind = true, k
	if !p.peek().is("{") {
		return nil
	}
	open := p.take()
	for {
		switch t := p.peek(); {
		case t.is("}"):
			p.take()
			return nil
		case t.is(";"):
			p.take()
		case p.atEnd():
			return &Error{Pos: open.pos, Msg: "{ without }"}
		default:
			if err := p.property(n); err != nil {
				return err
			}
		}
	}
}

// property reads one line of a declaration.
func (p *parser) property(n *Node) error {
	key := p.take()
	w := &words{pos: key.pos}
	for !p.atEnd() && !p.peek().is(";") && !p.peek().is("}") {
		w.toks = append(w.toks, p.take())
	}
	name, val, assigned := strings.Cut(key.text, "=")
	if assigned { // stp=on
		w.toks = append([]token{{text: val, pos: Pos{key.pos.Line, key.pos.Col + len(name) + 1}}}, w.toks...)
	}
	set := properties[name]
	if set == nil {
		return unknown(key.pos, name, slices.Sorted(maps.Keys(properties)))
	}
	if err := set(n, w); err != nil {
		return err
	}
	if len(w.toks) > 0 {
		return &Error{Pos: w.toks[0].pos, Msg: fmt.Sprintf("unexpected %q after %s", w.toks[0].text, name)}
	}
	return nil
}

// words are what follows a property's key.
type words struct {
	pos  Pos // of what was taken last
	toks []token
}

func (w *words) more() bool { return len(w.toks) > 0 }

// take gives the next word; what names it in the error if there is none.
func (w *words) take(what string) (string, error) {
	if len(w.toks) == 0 {
		return "", &Error{Pos: w.pos, Msg: what + " is missing"}
	}
	t := w.toks[0]
	w.toks, w.pos = w.toks[1:], t.pos
	return t.text, nil
}

// fail is an error at the word taken last.
func (w *words) fail(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Pos: w.pos, Msg: err.Error()}
}

// prefixes reads addresses with their networks' sizes, 10.0.0.1/24.
func prefixes(pos Pos, s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for a := range strings.SplitSeq(s, ",") {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			hint := ""
			if ip, err := netip.ParseAddr(a); err == nil {
				hint = fmt.Sprintf("%s/%d", a, map[bool]int{true: 24, false: 64}[ip.Is4()])
			}
			return nil, &Error{pos, fmt.Sprintf("%q is no address with its network's size", a), hint}
		}
		out = append(out, p)
		pos.Col += len(a) + 1
	}
	return out, nil
}
