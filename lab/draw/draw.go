// Package draw draws names, addresses and ports at random, none of them twice. The same seed draws the same.
package draw

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
)

// Deck is what is left to draw from. It is not for several goroutines.
type Deck struct {
	*rand.Rand
	words map[string]bool
	ports map[int]bool
}

// New makes a full deck.
func New(seed uint64) *Deck {
	return &Deck{rand.New(rand.NewPCG(seed, 0)), map[string]bool{}, map[int]bool{}}
}

// words are names of processes, devices and files.
var words = strings.Fields(`petrel otter heron badger marten plover curlew weasel dunlin shrike tern vole siskin linnet
	lapwing magpie pipit rook stoat osprey kestrel merlin avocet godwit knot ruff whimbrel bittern corncrake dotterel`)

// Word draws a word, of at most 12 letters.
func (d *Deck) Word() string {
	for {
		w := words[d.IntN(len(words))]
		if len(d.words) >= len(words) {
			w += strconv.Itoa(d.IntN(1000))
		}
		if !d.words[w] {
			d.words[w] = true
			return w
		}
	}
}

// Words draws n of them.
func (d *Deck) Words(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = d.Word()
	}
	return out
}

// Port draws a port outside the range that the kernel gives to connections.
func (d *Deck) Port() int {
	for {
		if p := 2000 + d.IntN(28000); !d.ports[p] {
			d.ports[p] = true
			return p
		}
	}
}

// Net draws the first two bytes of a private network, as text: "10.77".
func (d *Deck) Net() string { return fmt.Sprintf("10.%d", 64+d.IntN(128)) }

// Net6 draws a unique local network of 64 bits, as text without its end: "fd4a:9c3:1".
func (d *Deck) Net6() string {
	return fmt.Sprintf("fd%02x:%x:%x", d.IntN(256), 1+d.IntN(0xffff), 1+d.IntN(0xffff))
}

// MAC draws the address of one interface, locally administered.
func (d *Deck) MAC() net.HardwareAddr {
	m := net.HardwareAddr{2, 0, 0, 0, 0, 0}
	for i := 1; i < len(m); i++ {
		m[i] = byte(d.IntN(256))
	}
	return m
}

// Pick draws one of several.
func Pick[T any](d *Deck, from ...T) T { return from[d.IntN(len(from))] }
