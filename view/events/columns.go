package events

// Columns divide time into parts of one width, which doubles as the time grows: its end is not known before all is read.
type Columns[T any] struct {
	Join  func(into *T, from T) // of two parts made one
	First uint64                // when the first part begins, in ns
	Width uint64                // of a part, in ns; 0 before anything was asked for
	Parts []T                   // so far
	most  int
}

// NewColumns begins with no parts; there will be at most so many.
func NewColumns[T any](most int, join func(into *T, from T)) *Columns[T] {
	return &Columns[T]{Join: join, most: most}
}

// At gives the part of a time, and makes it and those before it if they are not there. What is before the first time counts as that.
func (c *Columns[T]) At(time uint64) *T {
	if c.Width == 0 {
		c.First, c.Width = time, 1
	}
	at := time - min(time, c.First)
	for at/c.Width >= uint64(c.most) {
		c.halve()
	}
	i := int(at / c.Width)
	for len(c.Parts) <= i {
		var none T
		c.Parts = append(c.Parts, none)
	}
	return &c.Parts[i]
}

// Between gives the parts from a time to another, which is not before it.
func (c *Columns[T]) Between(from, to uint64) []T {
	c.At(from)
	c.At(to) // which may have made the parts wider
	at := func(time uint64) uint64 { return (time - min(time, c.First)) / c.Width }
	return c.Parts[at(from) : at(to)+1]
}

// halve makes one part of two.
func (c *Columns[T]) halve() {
	c.Width *= 2
	n := (len(c.Parts) + 1) / 2
	for i := range n {
		into := c.Parts[2*i]
		if 2*i+1 < len(c.Parts) {
			c.Join(&into, c.Parts[2*i+1])
		}
		c.Parts[i] = into
	}
	clear(c.Parts[n:])
	c.Parts = c.Parts[:n]
}
