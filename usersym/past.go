package usersym

import "time"

// Epoch tells since when a process had had mapped what it had mapped at a time: addresses mean the same from then on until the next
// Epoch. Times are those that [Resolver.Exec], [Resolver.Mapped] and [Resolver.Forked] are given.
func (r *Resolver) Epoch(pid int, when uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.past(pid, when)
	if p == nil {
		return 0
	}
	for _, g := range p.maps {
		if g.since <= when {
			return max(g.since, p.since)
		}
	}
	return p.since
}

// ResolveAt names an address as [Resolver.Resolve] does, of the process that had the number at a time, by what it had mapped then.
func (r *Resolver) ResolveAt(pid int, when, addr uint64) (Frame, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.past(pid, when)
	if p == nil {
		return Frame{}, false
	}
	m, ok := p.findAt(when, addr)
	if !ok && p == r.procs[pid] && time.Since(p.missed) > again {
		p.missed = time.Now()
		r.note(pid) // nobody told
		p = r.past(pid, when)
		m, ok = p.findAt(when, addr)
	}
	return r.frame(p, m, ok, addr)
}

// past gives the process that had a number at a time; nil if there never was one.
func (r *Resolver) past(pid int, when uint64) *process {
	if r.procs[pid] == nil {
		r.note(pid)
	}
	p := r.procs[pid]
	for p != nil && p.since > when && p.before != nil {
		p = p.before
	}
	return p
}

// findAt looks first at what was mapped at the time, then at what was told later: a process that was not told of as yet had most of
// it already.
func (p *process) findAt(when, addr uint64) (mapping, bool) {
	first := 0
	for first < len(p.maps)-1 && p.maps[first].since > when {
		first++
	}
	for i := first; i < len(p.maps); i++ {
		if m, ok := p.maps[i].find(addr); ok {
			return m, true
		}
	}
	for i := first - 1; i >= 0; i-- {
		if m, ok := p.maps[i].find(addr); ok {
			return m, true
		}
	}
	return mapping{}, false
}
