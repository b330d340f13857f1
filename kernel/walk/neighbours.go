package walk

import (
	"fmt"
	"net/netip"

	"github.com/fathom-trace/fathom/kernel"
)

// Neighbour is a struct neighbour: whose hardware address an IP address is.
type Neighbour struct {
	Addr   uint64
	IP     netip.Addr
	HWType int // of the device: ARPHRD_ETHER is 1
	HW     []byte
	Device string
	State  uint8 // NUD_* (include/uapi/linux/neighbour.h)
}

// maxHashShift bounds a hash table's size, as maxBuckets does.
const maxHashShift = 24

// Neighbours reads the tables of neighbours of IPv4 (arp_tbl) and IPv6 (nd_tbl), which all network namespaces share.
func Neighbours(t kernel.Target) ([]Neighbour, error) {
	errs := &kernel.Errors{}
	var out []Neighbour
	for _, table := range []string{"arp_tbl", "nd_tbl"} {
		if table == "nd_tbl" && len(t.Symbols().ByName(table)) == 0 { // a module, or not there
			continue
		}
		v := kernel.Global(t, errs, "struct neigh_table", table)
		word, neigh := kernel.Object(t, errs, "void *", 0), kernel.Object(t, errs, "struct neighbour", 0)
		hash := v.Get("nht").Deref()
		first := hash.First("hash_heads", "hash_buckets") // single links until 6.12, since then an hlist
		link, key := "next", make([]byte, min(v.Get("key_len").Uint(), 16))
		if !v.OK() || !neigh.OK() || !first.OK() {
			break
		}
		if neigh.Has("hash") {
			link = "hash"
		}
		heads(t, errs, first.Uint(), 1<<min(hash.Get("hash_shift").Uint(), maxHashShift), 8, func(_ int, head uint64) bool {
			return chain(word.Shift(head), neigh, link, func(n kernel.Value) bool {
				one := Neighbour{Addr: n.Addr, Device: n.Get("dev.name").String(), HWType: n.Get("dev.type").Int(), State: uint8(n.Get("nud_state").Uint())}
				one.HW = n.Get("ha").Bytes(min(n.Get("dev.addr_len").Int(), 32))
				if err := t.ReadVirt(key, n.Get("primary_key").Addr); err != nil {
					errs.Add(err)
				}
				one.IP, _ = netip.AddrFromSlice(key)
				out = append(out, one)
				return true
			})
		})
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk neighbours: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}
