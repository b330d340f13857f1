package traffic

// Account says what became of numbered frames. The zero value is ready; one goroutine owns it.
type Account struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Lost    uint64 `json:"lost"`    // numbers that did not come, up to the highest that did
	Twice   uint64 `json:"twice"`   // numbers that came again
	Late    uint64 `json:"late"`    // numbers behind a higher one; old ones beyond the window may be counted here that were Twice
	Corrupt uint64 `json:"corrupt"` // other bytes than were sent
	Foreign uint64 `json:"foreign"` // not ours

	streams [1 << streamBits]*stream
}

// window is how far a late number may be behind to be told from one that comes again.
const window = 1 << 16

// stream is what is known of one sender's numbers.
type stream struct {
	next uint64 // all numbers before it have come, or are lost
	seen [window / 64]uint64
}

// Note accounts for a frame.
func (a *Account) Note(frame []byte) {
	a.Packets++
	a.Bytes += uint64(len(frame))
	seq, verdict := Read(frame)
	switch verdict {
	case Good:
		a.number(seq)
	case Corrupt:
		a.Corrupt++
	default:
		a.Foreign++
	}
}

// number accounts for a number: its high bits are the stream's.
func (a *Account) number(seq uint64) {
	id := seq >> (64 - streamBits)
	seq &= 1<<(64-streamBits) - 1
	s := a.streams[id]
	if s == nil {
		s = &stream{}
		a.streams[id] = s
	}
	if seq >= s.next {
		a.Lost += seq - s.next
		for n := min(seq-s.next, window); n > 0; n-- { // those between have not come
			s.clear(seq - n)
		}
		s.next = seq + 1
		s.set(seq)
		return
	}
	switch {
	case s.next-seq > window:
		a.Late++
	case s.has(seq):
		a.Twice++
	default:
		a.Late++
		a.Lost--
		s.set(seq)
	}
}

func (s *stream) set(n uint64)      { s.seen[n%window/64] |= 1 << (n % 64) }
func (s *stream) clear(n uint64)    { s.seen[n%window/64] &^= 1 << (n % 64) }
func (s *stream) has(n uint64) bool { return s.seen[n%window/64]>>(n%64)&1 != 0 }

// Stream gives number n of sender id.
func Stream(id int, n uint64) uint64 {
	return uint64(id)<<(64-streamBits) | n&(1<<(64-streamBits)-1)
}

// Add adds another account, of other frames.
func (a *Account) Add(b *Account) {
	a.Packets += b.Packets
	a.Bytes += b.Bytes
	a.Lost += b.Lost
	a.Twice += b.Twice
	a.Late += b.Late
	a.Corrupt += b.Corrupt
	a.Foreign += b.Foreign
}

// Clean says that nothing is lost, twice, or corrupt.
func (a *Account) Clean() bool { return a.Lost == 0 && a.Twice == 0 && a.Corrupt == 0 }
