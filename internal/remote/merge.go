package remote

// item is a line of a host.
type item struct {
	host    int
	time    int64 // ns since boot here, corrected
	arrived int64
	line    []byte
}

// merger puts what several hosts say into the order of its time. A line waits until every host has said something later, or
// that there is nothing earlier, but no longer than hold: a host that is silent delays the others by that much at most.
type merger struct {
	hold   int64
	queues [][]item
	marks  []int64 // by when a host has said all
	ended  []bool
	last   int64 // time of what was given last
	held   int
	late   []uint64 // how many lines of a host came after later ones had been given
}

// mostHeld bounds how many lines wait.
const mostHeld = 1 << 16

func newMerger(hosts int, hold int64) *merger {
	return &merger{hold: hold, queues: make([][]item, hosts), marks: make([]int64, hosts), ended: make([]bool, hosts), late: make([]uint64, hosts)}
}

// push takes a line. Those of one host come in their order: a better estimate of its clock does not turn it round.
func (m *merger) push(it item) {
	it.time = max(it.time, m.marks[it.host])
	m.marks[it.host] = it.time
	m.queues[it.host] = append(m.queues[it.host], it)
	m.held++
}

// mark notes that a host has said all up to a moment.
func (m *merger) mark(host int, t int64) { m.marks[host] = max(m.marks[host], t) }

// end notes that a host says nothing any more.
func (m *merger) end(host int) { m.ended[host] = true }

// first is the host whose line is the earliest, -1 if none waits.
func (m *merger) first() int {
	best := -1
	for h, q := range m.queues {
		if len(q) > 0 && (best < 0 || q[0].time < m.queues[best][0].time) {
			best = h
		}
	}
	return best
}

// pop gives the next line if it need not wait any more at a moment.
func (m *merger) pop(now int64) (it item, ok bool) {
	h := m.first()
	if h < 0 {
		return it, false
	}
	it = m.queues[h][0]
	if now-it.arrived < m.hold && m.held < mostHeld {
		for o, q := range m.queues {
			if len(q) == 0 && !m.ended[o] && m.marks[o] < it.time {
				return item{}, false
			}
		}
	}
	m.queues[h][0] = item{}
	if m.queues[h] = m.queues[h][1:]; len(m.queues[h]) == 0 {
		m.queues[h] = nil
	}
	m.held--
	if it.time < m.last {
		m.late[h]++
	}
	m.last = max(m.last, it.time)
	return it, true
}

// next is when the first line need not wait any more whatever hosts say; 0 if none waits.
func (m *merger) next() int64 {
	h := m.first()
	if h < 0 {
		return 0
	}
	return m.queues[h][0].arrived + m.hold
}
