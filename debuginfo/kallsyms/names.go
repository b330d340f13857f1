package kallsyms

import "strings"

// names collects what is known of symbols beside their addresses: of each its type, its name, its module in brackets behind a tab
// as in the list, and a new line. It is in pieces, so that nothing is copied to make room. Where a symbol stands is the number of its
// piece and its place in it.
type names struct {
	pieces []string
	last   strings.Builder
}

const (
	pieceBits  = 18 // logarithm of a piece's size
	pieceSize  = 1 << pieceBits
	mostPieces = 1 << (32 - pieceBits)
)

// add adds a symbol. ok is false if there is no room for it.
func (n *names) add(typ byte, name []byte, module string) (at uint32, ok bool) {
	size := len(name) + len("T\n")
	if module != "" {
		size += len("\t[]") + len(module)
	}
	if n.last.Len()+size > pieceSize {
		n.seal()
	}
	if size > pieceSize || len(n.pieces) >= mostPieces {
		return 0, false
	}
	if n.last.Len() == 0 {
		n.last.Grow(pieceSize)
	}
	at = uint32(len(n.pieces)<<pieceBits + n.last.Len())
	n.last.WriteByte(typ)
	n.last.Write(name)
	if module != "" {
		n.last.WriteString("\t[")
		n.last.WriteString(module)
		n.last.WriteByte(']')
	}
	n.last.WriteByte('\n')
	return at, true
}

// seal ends a piece.
func (n *names) seal() {
	if n.last.Len() > 0 {
		n.pieces = append(n.pieces, n.last.String())
		n.last = strings.Builder{}
	}
}

// sealed gives all pieces. More can be added.
func (n *names) sealed() []string {
	n.seal()
	return n.pieces
}

// at gives what stands at a place, to the end of its piece.
func at(pieces []string, place uint32) string {
	return pieces[place>>pieceBits][place&(pieceSize-1):]
}
