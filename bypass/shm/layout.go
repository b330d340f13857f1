package shm

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// The memory, in the byte order of the machine. fathom_shm.h has the same as structs.
//
//	0     header: magic, version, lanes, readers, slots, slot bytes, policy (32 bits each)
//	4096  for each lane:
//	        128 bytes: head (64 bits); from 64 on: state, room (32 bits each), dropped (64 bits)
//	        for each reader 128 bytes: tail (64 bits); from 64 on: active, sleeps (32 bits each), lost (64 bits)
//	        slots, each: sequence (64 bits), length (32 bits), 4 unused, the message
//
// head counts messages that were written, tail those that were read; both never go back. A slot has the sequence 2n+2 when message n is
// there, and 2n+1 while it is written over another (Overwrite). That is what a reader waits for: the message is in the same cache line, or
// begins there, and so one line goes from one CPU to the other, where with head there would be two. What one process writes with every message
// lies in a cache line of its own, apart from what the other looks at with every message and seldom changes; slots begin with a line, too,
// or share one evenly if they are small.
const (
	magic   = 0x6d687366 // "fshm"
	version = 2

	headerLen = 4096
	lineLen   = 128
	slotHead  = 16

	// Of a lane's line.
	offHead    = 0
	offState   = 64
	offRoom    = 68
	offDropped = 72

	// Of a reader's line.
	offTail   = 0
	offActive = 64
	offSleeps = 68
	offLost   = 72

	maxLanes   = 64
	maxReaders = 64
	maxSlots   = 1 << 20
	maxSlot    = 1 << 20
)

// States of a lane.
const (
	laneNew = iota
	laneOpen
	laneClosed
)

// Config says how memory is to be.
type Config struct {
	Writers int // at most, at the same time; 1 if 0
	Readers int // at most, at the same time; 1 if 0
	Slots   int // messages of each writer that may wait, a power of two; 1024 if 0
	Slot    int // bytes of the longest message; 64 if 0
	Policy  Policy
}

// Policy says what happens to a message for which a reader has no room.
type Policy uint32

// Policies.
const (
	Block     Policy = iota // the writer waits
	Drop                    // nobody gets the message; the writer counts it
	Overwrite               // the oldest message is overwritten; a reader that had not read it counts it
)

// String gives the policy's name.
func (p Policy) String() string {
	if int(p) < len(policies) {
		return policies[p]
	}
	return fmt.Sprintf("Policy(%d)", uint32(p))
}

var policies = [...]string{"block", "drop", "overwrite"}

func (c Config) withDefaults() Config {
	for _, p := range []struct {
		v   *int
		def int
	}{{&c.Writers, 1}, {&c.Readers, 1}, {&c.Slots, 1024}, {&c.Slot, 64}} {
		if *p.v == 0 {
			*p.v = p.def
		}
	}
	return c
}

// check refuses what cannot be, also of memory that another process made.
func (c Config) check() error {
	switch {
	case c.Writers < 1 || c.Writers > maxLanes || c.Readers < 1 || c.Readers > maxReaders:
		return fmt.Errorf("%d writers and %d readers: there are 1 to %d", c.Writers, c.Readers, maxLanes)
	case c.Slots < 2 || c.Slots > maxSlots || bits.OnesCount(uint(c.Slots)) != 1:
		return fmt.Errorf("%d messages: a power of two from 2 to %d", c.Slots, maxSlots)
	case c.Slot < 1 || c.Slot > maxSlot:
		return fmt.Errorf("messages of %d bytes: 1 to %d", c.Slot, maxSlot)
	case c.Policy > Overwrite:
		return fmt.Errorf("no policy %d", c.Policy)
	case c.Policy == Overwrite && c.Writers > 1:
		return fmt.Errorf("%d writers that overwrite: one only", c.Writers)
	}
	return nil
}

// stride is how far slots are apart: lines, or half of one.
func (c Config) stride() int {
	const line = 64 // of a cache; lineLen is for two, which CPUs fetch together
	if n := slotHead + c.Slot; n > line/2 {
		return (n + line - 1) &^ (line - 1)
	}
	return line / 2
}

// laneLen is how long a lane is, a multiple of a line.
func (c Config) laneLen() int {
	return (lineLen*(1+c.Readers) + c.Slots*c.stride() + lineLen - 1) &^ (lineLen - 1)
}

// size is how long the memory is.
func (c Config) size() int { return headerLen + c.Writers*c.laneLen() }

func (c Config) encode(b []byte) {
	for i, v := range []uint32{magic, version, uint32(c.Writers), uint32(c.Readers), uint32(c.Slots), uint32(c.Slot), uint32(c.Policy)} {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
}

// decode reads the header of memory that is size bytes long.
func decode(b []byte, size int64) (Config, error) {
	const n = 7
	if len(b) < 4*n {
		return Config{}, fmt.Errorf("shared memory of %d bytes is too short", len(b))
	}
	var v [n]uint32
	for i := range v {
		v[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	if v[0] != magic || v[1] != version {
		return Config{}, fmt.Errorf("no shared memory of ours: it begins with %#x, version %d", v[0], v[1])
	}
	if v[2] > maxLanes || v[3] > maxReaders || v[4] > maxSlots || v[5] > maxSlot {
		return Config{}, fmt.Errorf("shared memory of %d writers, %d readers, %d messages of %d bytes", v[2], v[3], v[4], v[5])
	}
	c := Config{Writers: int(v[2]), Readers: int(v[3]), Slots: int(v[4]), Slot: int(v[5]), Policy: Policy(v[6])}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	if int64(c.size()) != size {
		return Config{}, fmt.Errorf("shared memory is %d bytes long, and should be %d", size, c.size())
	}
	return c, nil
}
