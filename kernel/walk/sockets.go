package walk

import (
	"encoding/binary"
	"iter"

	"github.com/fathom-trace/fathom/kernel"
)

// maxBuckets bounds a hash table.
const maxBuckets = 1 << 24

// heads goes over the pointers at the start of each element of an array: the heads of a hash table's chains that are not
// empty, with their numbers. Empty ones are most, so they are read many at a time.
func heads(t kernel.Target, errs *kernel.Errors, array uint64, n, stride int, yield func(int, uint64) bool) bool {
	if n > maxBuckets || stride < 8 {
		n = 0
	}
	const chunk = 4096
	lost := newAstray(errs)
	for from := 0; from < n; from += chunk {
		k := min(chunk, n-from)
		b := make([]byte, k*stride)
		if err := t.ReadVirt(b, array+uint64(from*stride)); err != nil {
			errs.Add(err)
			continue
		}
		for i := range k {
			if h := binary.LittleEndian.Uint64(b[i*stride:]); h != 0 && h&1 == 0 {
				if !yield(from+i, h) {
					return false
				}
				if lost.far(false) {
					return true
				}
			}
		}
	}
	return true
}

// chain goes over an hlist, or an hlist_nulls, whose end is an odd number: the objects of a type that are linked by a member
// (struct hlist_node, or hlist_nulls_node) with the first pointer of both.
func chain(first, object kernel.Value, member string, yield func(kernel.Value) bool) bool {
	off := object.Shift(0).Get(member).Addr
	at, seen := first.Addr, uint64(0)
	for n := 0; at != 0 && at&1 == 0 && at != seen; n++ {
		if !yield(object.Shift(at - off)) {
			return false
		}
		if n&(n-1) == 0 { // a circle is met again at one of these
			seen = at
		}
		at = first.Shift(at).Uint() // next is the first member of both
	}
	return true
}

// TCPSockets goes over the sockets of the table that the network namespaces share: those that listen, then all others, among
// them such as wait for the end (struct inet_timewait_sock) or have not begun (struct request_sock). What all of them begin
// with is a struct sock_common.
func TCPSockets(t kernel.Target, errs *kernel.Errors) iter.Seq[kernel.Value] {
	return func(yield func(kernel.Value) bool) {
		h := kernel.Global(t, errs, "struct inet_hashinfo", "tcp_hashinfo")
		sock, word := kernel.Object(t, errs, "struct sock_common", 0), kernel.Object(t, errs, "void *", 0)
		listen := kernel.Object(t, errs, "struct inet_listen_hashbucket", 0)
		head := listen.First("nulls_head", "head") // head until 5.18
		if !head.OK() || !h.OK() || !sock.OK() {
			return
		}
		give := func(_ int, first uint64) bool { return chain(word.Shift(first), sock, "skc_nulls_node", yield) }
		stride := listen.Size()
		_ = heads(t, errs, h.Get("lhash2").Uint()+head.Addr, h.Get("lhash2_mask").Int()+1, stride, give) &&
			heads(t, errs, h.Get("ehash").Uint(), h.Get("ehash_mask").Int()+1, kernel.Object(t, errs, "struct inet_ehash_bucket", 0).Size(), give)
	}
}

// UDPSockets goes over the sockets (struct sock) of the table that the network namespaces share, with the bucket of each.
func UDPSockets(t kernel.Target, errs *kernel.Errors) iter.Seq2[int, kernel.Value] {
	return func(yield func(int, kernel.Value) bool) {
		h := kernel.Global(t, errs, "struct udp_table", "udp_table")
		sock, word := kernel.Object(t, errs, "struct sock", 0), kernel.Object(t, errs, "void *", 0)
		stride := kernel.Object(t, errs, "struct udp_hslot", 0).Size()
		heads(t, errs, h.Get("hash").Uint(), h.Get("mask").Int()+1, stride, func(i int, first uint64) bool {
			return chain(word.Shift(first), sock, "__sk_common.skc_node", func(v kernel.Value) bool { return yield(i, v) })
		})
	}
}

// unixBuckets is UNIX_HASH_SIZE (include/net/af_unix.h): half for sockets with a name of text, half by inode.
const unixBuckets = 512

// UnixSockets goes over the sockets (struct sock) of all network namespaces, each of which has a table (since 5.19).
func UnixSockets(t kernel.Target, errs *kernel.Errors) iter.Seq[kernel.Value] {
	return func(yield func(kernel.Value) bool) {
		sock, word := kernel.Object(t, errs, "struct sock", 0), kernel.Object(t, errs, "void *", 0)
		for ns := range kernel.Global(t, errs, "struct list_head", "net_namespace_list").List("struct net", "list") {
			ok := heads(t, errs, ns.Get("unx.table.buckets").Uint(), unixBuckets, 8, func(_ int, first uint64) bool {
				return chain(word.Shift(first), sock, "__sk_common.skc_node", yield)
			})
			if !ok {
				return
			}
		}
	}
}

// netlinkProtocols is MAX_LINKS (include/uapi/linux/netlink.h).
const netlinkProtocols = 32

// NetlinkSockets goes over the sockets (struct netlink_sock) of all network namespaces, the kernel's own among them.
func NetlinkSockets(t kernel.Target, errs *kernel.Errors) iter.Seq[kernel.Value] {
	return func(yield func(kernel.Value) bool) {
		table := kernel.Global(t, errs, "struct netlink_table *", "nl_table").Deref()
		sock, word := kernel.Object(t, errs, "struct netlink_sock", 0), kernel.Object(t, errs, "void *", 0)
		if !table.OK() || !sock.OK() {
			return
		}
		first, lost := table.Addr, newAstray(errs) // one for all: where one leads nowhere, the next may
		for i := range netlinkProtocols {
			hash := table.Shift(first + uint64(i*table.Size())).Get("hash")
			if hash.Get("tbl").Uint() != 0 && !rhashTable(lost, hash, word, sock, "node", yield) {
				return
			}
		}
	}
}

// rhashTable goes over a struct rhashtable: the objects of a type that are linked by a member. The lowest bit of a bucket is
// its lock; chains end with an odd number (include/linux/rhashtable.h). The table knows how many objects it has, about so many while some
// come and go: what is found beyond is other memory, behind a length that is wrong.
func rhashTable(lost *astray, hash, word, object kernel.Value, member string, yield func(kernel.Value) bool) bool {
	table := hash.Get("tbl").Deref()
	at, enough := table.Get("buckets").Addr, false
	left := hash.Get("nelems.counter").Int()
	left += left/8 + 64
	for i := range min(table.Get("size").Int(), maxBuckets) {
		first := word.Shift(at+8*uint64(i)).Uint() &^ 1
		enough = lost.far(true)
		if first != 0 && !enough {
			whole := chain(word.Shift(first), object, member, func(v kernel.Value) bool {
				if left--; left < 0 {
					lost.errs.Add(errAstray)
					enough = true
					return false
				}
				if !yield(v) {
					return false
				}
				enough = lost.far(false)
				return !enough
			})
			if !whole && !enough {
				return false
			}
		}
		if enough {
			break
		}
	}
	return true
}

// XArray goes over an XArray (or a radix tree, or an IDR, which are the same) in order of the indices: what is stored there.
// xa is the struct xarray.
func XArray(xa kernel.Value) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		xaEntry(xa, xa.Get("xa_head").Uint(), maxLevels, yield)
	}
}

// xaEntry goes over what is below an entry: an object, or a node, of which there are at most so many levels.
func xaEntry(xa kernel.Value, entry uint64, levels int, yield func(uint64) bool) bool {
	switch {
	case entry == 0 || levels == 0:
		return true
	case entry&xaMask != xaNode:
		return yield(entry)
	case entry < xaReserved: // a sibling, or a mark of what was there
		return true
	}
	node := xa.Cast("struct xa_node").Shift(entry &^ xaMask)
	for i := range node.Len("slots") {
		if !xaEntry(xa, node.Get("slots").At(i).Uint(), levels-1, yield) {
			return false
		}
	}
	return true
}
