package rtnl

import (
	"encoding/binary"
	"net/netip"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// struct xfrm_userpolicy_info and struct xfrm_selector (include/uapi/linux/xfrm.h), on machines of 64 bits.
const (
	userPolicy   = 168
	polPriority  = 152
	polIndex     = 156
	polDir       = 160
	polAction    = 161
	selSrc       = 16
	selFamily    = 40
	selDstLen    = 42
	selSrcLen    = 43
	selProto     = 44
	selLink      = 48
	xfrmaTmpl    = 5
	userTmplSize = 64
)

// DecodePolicy reads an XFRM_MSG_NEWPOLICY message.
func DecodePolicy(b []byte) (netstate.Policy, error) {
	a, err := nlattr.ParseAt(b, userPolicy)
	if err != nil {
		return netstate.Policy{}, err
	}
	fam := family(uint8(binary.LittleEndian.Uint16(b[selFamily:])))
	return netstate.Policy{
		Dir: name([]string{"in", "out", "fwd"}, int(b[polDir])), Action: name([]string{"allow", "block"}, int(b[polAction])),
		Dst: selector(fam, b, b[selDstLen]), Src: selector(fam, b[selSrc:], b[selSrcLen]),
		Index: nlattr.U32(b[polIndex:]), Prio: nlattr.U32(b[polPriority:]), Tmpl: len(a.Get(xfrmaTmpl)) / userTmplSize,
		Proto: b[selProto], Link: int(nlattr.U32(b[selLink:])),
	}, nil
}

func selector(fam int, b []byte, bits uint8) netip.Prefix {
	if fam == 4 {
		return prefix(fam, b[:4], bits)
	}
	return prefix(fam, b[:16], bits)
}
