package usersym

// LoadBias gives what must be added to an address as linked in a file to get the address in a process that maps it.
func (r *Resolver) LoadBias(pid int, path string) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(pid)
	p := r.procs[pid]
	if p == nil {
		return 0, false
	}
	for _, gen := range p.maps {
		for _, m := range gen.maps {
			if m.path != path || m.obj == nil {
				continue
			}
			s := r.load(m.obj)
			if s == nil {
				continue
			}
			if at, ok := s.file.Addr(m.off); ok {
				return m.start - at, true
			}
		}
	}
	return 0, false
}

// AtFile names an address in a file as if it were loaded where it is linked: for a process that ended before it was
// first seen, whose program is not position-independent.
func (r *Resolver) AtFile(path string, addr uint64) (Frame, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.byPath(path)
	if err != nil {
		return Frame{}, false
	}
	sym, ok := s.funcs.Find(addr)
	if !ok {
		return Frame{}, false
	}
	return Frame{Name: r.name(sym.Name), Symbol: sym.Name, Offset: addr - sym.Addr, Addr: addr, File: path}, true
}
