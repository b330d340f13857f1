package vm

import (
	"bytes"
	"hash/maphash"
)

// hashTable maps keys to slots, chained, with the kernel's preallocated
// behaviour: an update of an existing key goes to a fresh slot, so that a
// pointer to the old value still reads the old value. Slots are handed out in
// order, so nothing a program sees depends on the hash.
type hashTable struct {
	key     int
	max     int
	lru     bool
	seed    maphash.Seed
	buckets []int32 // first slot, or -1; a power of two
	slots   []slot
	keys    []byte // slot × key
	free    []int32
	used    int // slots ever handed out
	n       int // keys stored

	newest, oldest int32 // ends of the LRU list
}

type slot struct {
	next         int32 // in the bucket
	live         bool
	newer, older int32 // in the LRU list
}

func newHashTable(key, maxEntries int, lru bool) *hashTable {
	h := &hashTable{key: key, max: maxEntries, lru: lru, seed: maphash.MakeSeed(), newest: -1, oldest: -1}
	h.resize(16)
	return h
}

func (h *hashTable) bucket(key []byte) *int32 {
	return &h.buckets[maphash.Bytes(h.seed, key)&uint64(len(h.buckets)-1)]
}

func (h *hashTable) keyOf(s int32) []byte { return h.keys[int(s)*h.key : (int(s)+1)*h.key] }

// keyAt is slot s's key, or nil if it holds none.
func (h *hashTable) keyAt(s int) []byte {
	if !h.slots[s].live {
		return nil
	}
	return h.keyOf(int32(s))
}

// find gives key's slot, or -1, and marks it as used.
func (h *hashTable) find(key []byte) int {
	for s := *h.bucket(key); s >= 0; s = h.slots[s].next {
		if bytes.Equal(h.keyOf(s), key) {
			h.touch(s)
			return int(s)
		}
	}
	return -1
}

// insert stores a key that is not there. -1 if the table is full.
func (h *hashTable) insert(key []byte) int {
	if h.n >= h.max {
		if !h.lru {
			return -1
		}
		h.drop(h.oldest)
	}
	s := h.take()
	copy(h.keyOf(s), key)
	h.link(s)
	if h.n > len(h.buckets) {
		h.resize(2 * len(h.buckets))
	}
	return int(s)
}

// replace moves slot s's key to a fresh slot and frees s.
func (h *hashTable) replace(s int) int {
	n := h.take()
	copy(h.keyOf(n), h.keyOf(int32(s)))
	h.drop(int32(s))
	h.link(n)
	return int(n)
}

func (h *hashTable) remove(key []byte) bool {
	s := h.find(key)
	if s >= 0 {
		h.drop(int32(s))
	}
	return s >= 0
}

// take gives a slot that holds no key.
func (h *hashTable) take() int32 {
	if n := len(h.free); n > 0 {
		s := h.free[n-1]
		h.free = h.free[:n-1]
		return s
	}
	s := int32(h.used)
	h.used++
	h.slots = append(h.slots, slot{})
	h.keys = append(h.keys, make([]byte, h.key)...)
	return s
}

// link makes slot s findable.
func (h *hashTable) link(s int32) {
	b := h.bucket(h.keyOf(s))
	h.slots[s] = slot{next: *b, live: true, newer: -1, older: h.newest}
	*b = s
	h.n++
	if !h.lru {
		return
	}
	if h.newest >= 0 {
		h.slots[h.newest].newer = s
	} else {
		h.oldest = s
	}
	h.newest = s
}

// drop forgets slot s's key; its bytes stay until the slot is taken again.
func (h *hashTable) drop(s int32) {
	p := h.bucket(h.keyOf(s))
	for *p != s {
		p = &h.slots[*p].next
	}
	*p = h.slots[s].next
	h.unlist(s)
	h.slots[s].live = false
	h.free = append(h.free, s)
	h.n--
}

func (h *hashTable) unlist(s int32) {
	if !h.lru {
		return
	}
	newer, older := h.slots[s].newer, h.slots[s].older
	if newer >= 0 {
		h.slots[newer].older = older
	} else {
		h.newest = older
	}
	if older >= 0 {
		h.slots[older].newer = newer
	} else {
		h.oldest = newer
	}
}

// touch makes slot s the most recently used.
func (h *hashTable) touch(s int32) {
	if !h.lru || h.newest == s {
		return
	}
	h.unlist(s)
	h.slots[s].newer, h.slots[s].older = -1, h.newest
	h.slots[h.newest].newer = s
	h.newest = s
}

func (h *hashTable) resize(n int) {
	h.buckets = make([]int32, n)
	for i := range h.buckets {
		h.buckets[i] = -1
	}
	for s := range h.slots {
		if h.slots[s].live {
			b := h.bucket(h.keyOf(int32(s)))
			h.slots[s].next, *b = *b, int32(s)
		}
	}
}
