package filter

// direction, addrType: the qualifiers of an id.
type direction uint8

const (
	dirAny direction = iota // as src or dst
	dirSrc
	dirDst
	dirOr
	dirAnd
	dirWLAN // addr1 … ta
)

type addrType uint8

const (
	asDefault addrType = iota
	asHost
	asNet
	asPort
	asPortRange
	asProto
	asProtoChain
	asGateway
	asNone // nothing to inherit: after a protocol or a comparison
)

// addrTypes are the words for address types.
var addrTypes = map[string]addrType{
	"host": asHost, "net": asNet, "port": asPort, "portrange": asPortRange, "proto": asProto, "protochain": asProtoChain,
	"gateway": asGateway,
}

// qual says how an id is meant.
type qual struct {
	proto proto
	dir   direction
	addr  addrType
}

// none is what stands before the first id of an expression.
var none = qual{addr: asNone}

// node is a part of a parsed expression.
type node interface{ place() token }

type (
	notNode struct {
		op token
		x  node
	}
	binaryNode struct { // x and y, x or y
		op   token
		x, y node
	}
	idNode struct {
		q     qual
		id    token
		len   *token // /len
		mask  *token // mask 255.0.0.0
		after token  // the last token
	}
	protoNode struct{ name token }
	// wordNode is a primitive that is a word of its own: vlan 5, less 100, ip broadcast.
	wordNode struct {
		word  token
		q     token // the protocol before broadcast and multicast; its kind is kEOF if there is none
		args  []token
		oper  string // byte
		given bool   // the optional number is there
	}
	relNode struct {
		op   token
		x, y arith
	}
)

func (n *notNode) place() token    { return n.op }
func (n *binaryNode) place() token { return n.op }
func (n *idNode) place() token     { return n.id }
func (n *protoNode) place() token  { return n.name }
func (n *wordNode) place() token   { return n.word }
func (n *relNode) place() token    { return n.op }

// arith is a part of an arithmetic expression.
type arith interface{ first() token }

type (
	numArith  struct{ num token }
	lenArith  struct{ word token }
	loadArith struct {
		name token
		at   arith
		size token // its num is 1 if none is given
	}
	negArith struct {
		op token
		x  arith
	}
	opArith struct {
		op   token
		x, y arith
	}
)

func (a *numArith) first() token  { return a.num }
func (a *lenArith) first() token  { return a.word }
func (a *loadArith) first() token { return a.name }
func (a *negArith) first() token  { return a.op }
func (a *opArith) first() token   { return a.op }
