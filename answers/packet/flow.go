package packet

// Hop is one event of a packet's way.
type Hop struct {
	Event
	View View `json:"-"`
	// Func is the function of the network that was at work, by the stack; Path are those around it, the outermost last.
	Func string   `json:"func,omitempty"`
	Path []string `json:"path,omitempty"`
}

// Packet is one packet, through clones and rewritten headers, from where it was first seen.
type Packet struct {
	ID    uint64 `json:"id"`
	Hops  []*Hop `json:"hops"`
	Tuple Tuple  `json:"tuple"` // as it was first seen
	// Received: it was given to a process, or consumed where it belongs.
	Received bool `json:"received,omitempty"`

	flow    *Flow
	skbs    []uint64 // alive
	head    uint64
	last    uint64 // time of the last event
	split   bool   // became segments, which are packets of their own
	weight  uint64 // segments it stands for
	state   State
	loss    *Loss   // what it is counted in
	timed   *Hop    // the last event that a stage begins with
	repeats *Packet // the segment of TCP that it sends again
	trail   *trail  // nil unless trails are told
}

// State is what became of a packet.
type State uint8

// States. A packet whose end nobody told is Open: in flight, in a queue, or taken in silence by who it was for.
const (
	Open State = iota
	Delivered
	Lost
)

// Flow is the packets of one tuple that were first seen in one namespace.
type Flow struct {
	// Number is by which order flows were first seen, from 1.
	Number int `json:"number,omitempty"`

	Tuple Tuple  `json:"tuple"`
	Netns uint32 `json:"netns"` // where they were first seen
	Dev   string `json:"dev,omitempty"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`

	Packets     uint64    `json:"packets"`
	Bytes       uint64    `json:"bytes"`
	Delivered   uint64    `json:"delivered"` // given to a process, or to the part of the kernel they were for
	Dropped     uint64    `json:"dropped"`
	Retransmits uint64    `json:"retransmits,omitempty"` // as TCP says
	Repeated    uint64    `json:"repeated,omitempty"`    // packets that repeat an earlier one
	Losses      []*Loss   `json:"losses,omitempty"`
	Sample      []*Packet `json:"sample,omitempty"`      // some of its packets: the first few
	OpenSample  *Packet   `json:"open_sample,omitempty"` // one that nobody told the end of
	Rewritten   []Rewrite `json:"rewritten,omitempty"`
	Sender      Process   `json:"sender,omitzero"`
	Cgroup      string    `json:"cgroup,omitempty"` // of the sender, where a program on a cgroup dropped something
}

// Open is how many packets nobody told the end of.
func (f *Flow) Open() uint64 {
	if done := f.Delivered + f.Dropped; done < f.Packets {
		return f.Packets - done
	}
	return 0
}

// Process is who sent.
type Process struct {
	PID  uint32 `json:"pid"`
	Comm string `json:"comm"`
}

// Rewrite is a change of a packet's addresses on its way: by NAT, or by a rule that writes into packets.
type Rewrite struct {
	Netns uint32 `json:"netns"`
	Dev   string `json:"dev,omitempty"`
	From  Tuple  `json:"from"`
	To    Tuple  `json:"to"`

	Before *Hop `json:"before,omitempty"` // the event before the change
}

// Loss is packets of a flow that were lost at one place for one reason.
type Loss struct {
	Netns  uint32 `json:"netns"`
	Dev    string `json:"dev,omitempty"`
	Ifidx  uint32 `json:"ifindex,omitempty"`
	Func   string `json:"function"`
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
	// Repeats is how often TCP sent lost segments again, which were lost again: they are not in Count, nor among the flow's
	// packets.
	Repeats uint64  `json:"repeats,omitempty"`
	Sample  *Packet `json:"sample"`
	At      *Hop    `json:"at"` // of the sample: the drop
}

// Flow is the flow of the packet that was lost first; nil if it belongs to none.
func (l *Loss) Flow() *Flow {
	if l.Sample == nil {
		return nil
	}
	return l.Sample.flow
}

// Refusal is system calls that failed alike.
type Refusal struct {
	Event
	Count uint64 `json:"count"`
}

// Trouble is an event of a device that has no packet: an XDP program's error.
type Trouble struct {
	Event
	Count uint64 `json:"count"`
}

type flowKey struct {
	Tuple
	netns uint32
}
