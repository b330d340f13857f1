package nic

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// Generic netlink (include/uapi/linux/genetlink.h).
const (
	CtrlFamily     = 0x10 // GENL_ID_CTRL
	ctrlGetFamily  = 3
	ctrlFamilyID   = 1
	ctrlFamilyName = 2
	genlHeader     = 4 // struct genlmsghdr
)

// Commands of the families that are asked.
const (
	NetdevQueueGet = 10 // NETDEV_CMD_QUEUE_GET, Linux 6.8
	NetdevNAPIGet  = 11 // NETDEV_CMD_NAPI_GET, Linux 6.8

	EthtoolStrset   = 1 // ETHTOOL_MSG_STRSET_GET, Linux 5.6; the others up to 5.7
	EthtoolFeatures = 11
	EthtoolRings    = 15
	EthtoolChannels = 17
	EthtoolCoalesce = 19
)

func genl(cmd uint8) []byte { return []byte{cmd, 1, 0, 0} }

// FamilyRequest asks the controller for a family's number.
func FamilyRequest(name string) []byte {
	return nlattr.Append(genl(ctrlGetFamily), ctrlFamilyName, append([]byte(name), 0))
}

// Family reads the answer.
func Family(b []byte) (id uint16, err error) {
	a, err := nlattr.ParseAt(b, genlHeader)
	return a.U16(ctrlFamilyID), err
}

// NetdevRequest asks the family "netdev" for queues or NAPI instances of a device; both are dumps.
func NetdevRequest(cmd uint8, index int) []byte {
	attr := uint16(1) // NETDEV_A_NAPI_IFINDEX
	if cmd == NetdevQueueGet {
		attr = 2 // NETDEV_A_QUEUE_IFINDEX
	}
	return nlattr.AppendU32(genl(cmd), attr, uint32(index))
}

// DecodeQueue reads an answer to NetdevQueueGet.
func DecodeQueue(b []byte) (Queue, error) {
	const id, typ, napi = 1, 3, 4
	a, err := nlattr.ParseAt(b, genlHeader)
	q := Queue{Dir: RX, Index: int(a.U32(id)), NAPI: a.U32(napi), Net: true}
	if a.U32(typ) == 1 {
		q.Dir = TX
	}
	return q, err
}

// DecodeNAPI reads an answer to NetdevNAPIGet.
func DecodeNAPI(b []byte) (NAPI, error) {
	const id, irq, pid, deferIRQs, groTimeout = 2, 3, 4, 5, 6
	a, err := nlattr.ParseAt(b, genlHeader)
	n := NAPI{ID: a.U32(id), IRQ: int(a.U32(irq)), PID: int(a.U32(pid))}
	if a.Has(deferIRQs) { // since 6.13
		v := a.U32(deferIRQs)
		n.DeferIRQs = &v
	}
	if d := a.Get(groTimeout); d != nil {
		v := uint64(nlattr.U32(d)) // a number of four or eight bytes, as it needs (nla_put_uint)
		if len(d) >= 8 {
			v = nlattr.U64(d)
		}
		n.GROTimeout = &v
	}
	return n, err
}

// EthtoolRequest asks the family "ethtool" for something of a device.
func EthtoolRequest(cmd uint8, index int) []byte {
	const nested, header, devIndex = 0x8000, 1, 1
	b := nlattr.Append(genl(cmd), header|nested, nlattr.AppendU32(nil, devIndex, uint32(index)))
	if cmd == EthtoolStrset {
		b = nlattr.Append(b, 2|nested, nlattr.Append(nil, 1|nested, nlattr.AppendU32(nil, 1, featureStrings)))
	}
	return b
}

// featureStrings is ETH_SS_FEATURES.
const featureStrings = 4

// DecodeChannels reads the answer to EthtoolChannels.
func DecodeChannels(b []byte) (*Channels, error) {
	a, err := nlattr.ParseAt(b, genlHeader)
	return &Channels{MaxRX: a.U32(2), MaxTX: a.U32(3), MaxOther: a.U32(4), MaxCombined: a.U32(5), RX: a.U32(6), TX: a.U32(7), Other: a.U32(8), Combined: a.U32(9)}, err
}

// DecodeRings reads the answer to EthtoolRings.
func DecodeRings(b []byte) (*Rings, error) {
	a, err := nlattr.ParseAt(b, genlHeader)
	return &Rings{MaxRX: a.U32(2), MaxTX: a.U32(5), RX: a.U32(6), TX: a.U32(9)}, err
}

// coalesceNames are ETHTOOL_A_COALESCE_… from 2 on, as ethtool -c calls them.
var coalesceNames = [...]string{
	"rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq", "tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq",
	"stats-block-usecs", "adaptive-rx", "adaptive-tx", "pkt-rate-low", "rx-usecs-low", "rx-frames-low", "tx-usecs-low", "tx-frames-low",
	"pkt-rate-high", "rx-usecs-high", "rx-frames-high", "tx-usecs-high", "tx-frames-high", "sample-interval", "cqe-mode-tx", "cqe-mode-rx",
}

// DecodeCoalesce reads the answer to EthtoolCoalesce: what the driver has.
func DecodeCoalesce(b []byte) (out []Setting, err error) {
	a, err := nlattr.ParseAt(b, genlHeader)
	for i, name := range coalesceNames {
		d := a.Get(uint16(2 + i))
		switch {
		case len(d) >= 4:
			out = append(out, Setting{name, nlattr.U32(d)})
		case len(d) == 1:
			out = append(out, Setting{name, uint32(d[0])})
		}
	}
	return out, err
}

// DecodeStrings reads the answer to EthtoolStrset: the names of features by their bit.
func DecodeStrings(b []byte) (map[uint32]string, error) {
	a, err := nlattr.ParseAt(b, genlHeader)
	out := map[uint32]string{}
	for _, set := range a.Nested(2) {
		s, _ := nlattr.Parse(set.Data)
		if s.U32(1) != featureStrings {
			continue
		}
		for _, str := range s.Nested(3) {
			if x, err := nlattr.Parse(str.Data); err == nil {
				out[x.U32(1)] = x.String(2)
			}
		}
	}
	return out, err
}

// DecodeFeatures reads the answer to EthtoolFeatures. names are by bit.
func DecodeFeatures(b []byte, names map[uint32]string) (out []Feature, err error) {
	const hw, active, nochange = 2, 4, 5
	a, err := nlattr.ParseAt(b, genlHeader)
	can, on, never := bitset(a.Nested(hw)), bitset(a.Nested(active)), bitset(a.Nested(nochange))
	for i := uint32(0); i < 1024; i++ {
		if name := names[i]; name != "" { // some bits have none
			out = append(out, Feature{Name: name, On: on[i], Fixed: !can[i] || never[i]})
		}
	}
	return out, err
}

// bitset reads the bits that are set of either form (ETHTOOL_A_BITSET_…).
func bitset(a nlattr.Attrs) map[uint32]bool {
	const noMask, bits, value = 1, 3, 4
	const bitIndex, bitValue = 1, 3
	out := map[uint32]bool{}
	for _, bit := range a.Nested(bits) {
		if x, err := nlattr.Parse(bit.Data); err == nil && (a.Has(noMask) || x.Has(bitValue)) {
			out[x.U32(bitIndex)] = true
		}
	}
	v := a.Get(value)
	for i := 0; i+4 <= len(v); i += 4 {
		w := binary.LittleEndian.Uint32(v[i:])
		for k := uint32(0); k < 32; k++ {
			if w>>k&1 != 0 {
				out[uint32(i)*8+k] = true
			}
		}
	}
	return out
}
