package oops

import (
	"bytes"
	"strconv"
	"strings"
)

// Netconsole puts the packets of one sender together: what netconsole sends is text as it comes, or, in the extended form
// (Documentation/networking/netconsole.rst), one message a packet with a header, whose "ncfrag=OFFSET/LENGTH" says that it is
// a part of one. The zero value is ready.
type Netconsole struct {
	Lost int // messages that did not come, by the numbers that extended ones have

	last  uint64
	begun bool

	frag    []byte // the message that is being put together
	fragSeq uint64
}

// maxMessage bounds a message that comes in parts.
const maxMessage = 64 << 10

// Add takes a packet and returns the text that is whole with it, ends of lines included; "" while parts are missing.
func (n *Netconsole) Add(packet []byte) string {
	head, body, ok := bytes.Cut(packet, []byte(";"))
	fields := strings.Split(string(head), ",")
	if !ok || len(head) > 256 || len(fields) < 4 {
		return string(packet)
	}
	if len(fields) >= 5 && !digits(fields[0]) { // the release stands before, if it was asked for
		fields = fields[1:]
	}
	seq, err := strconv.ParseUint(fields[1], 10, 64)
	if !digits(fields[0]) || err != nil || !digits(fields[2]) {
		return string(packet)
	}
	part := fragment(fields[4:])
	if n.begun && seq > n.last+1 {
		n.Lost += int(min(seq-n.last-1, 1<<30))
	}
	n.last, n.begun = max(n.last, seq), true
	if part == nil {
		return line(body)
	}
	return n.join(seq, *part, body)
}

// join adds a part; parts come in order, and a message with one missing is dropped.
func (n *Netconsole) join(seq uint64, p part, body []byte) string {
	if p.off == 0 {
		n.frag, n.fragSeq = nil, seq
	}
	if seq != n.fragSeq || p.off != len(n.frag) || p.size > maxMessage {
		n.frag, n.fragSeq = nil, 0
		n.Lost++
		return ""
	}
	n.frag = append(n.frag, body...)
	if len(n.frag) < p.size {
		return ""
	}
	text := line(n.frag)
	n.frag = nil
	return text
}

type part struct{ off, size int }

func fragment(fields []string) *part {
	for _, f := range fields {
		v, ok := strings.CutPrefix(f, "ncfrag=")
		off, size, cut := strings.Cut(v, "/")
		o, err1 := strconv.Atoi(off)
		s, err2 := strconv.Atoi(size)
		if ok && cut && err1 == nil && err2 == nil && o >= 0 && s >= o {
			return &part{o, s}
		}
	}
	return nil
}

// line is a message without the dictionary of devices behind it (lines that begin with a space), as one line or several.
func line(body []byte) string {
	text, _, _ := strings.Cut(string(body), "\n ")
	return strings.TrimRight(text, "\n") + "\n"
}

func digits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
