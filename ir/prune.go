package ir

// Prune drops blocks that nothing jumps to, which the verifier would refuse, and numbers the rest. All blocks have a
// terminator. It says if there were any.
func (f *Func) Prune() bool {
	for i, b := range f.Blocks {
		b.ID = i
	}
	seen := make([]bool, len(f.Blocks))
	work := []*Block{f.Blocks[0]}
	seen[0] = true
	for len(work) > 0 {
		b := work[len(work)-1]
		work = work[:len(work)-1]
		t := b.Term()
		for _, s := range [...]*Block{t.Then, t.Else} {
			if s != nil && !seen[s.ID] {
				seen[s.ID] = true
				work = append(work, s)
			}
		}
	}
	keep := f.Blocks[:0]
	for _, b := range f.Blocks {
		if seen[b.ID] {
			keep = append(keep, b)
		}
	}
	changed := len(keep) < len(seen)
	f.Blocks = keep
	for i, b := range f.Blocks {
		b.ID = i
	}
	return changed
}
