package vmcore

import "slices"

// WithMemory returns a Core with the notes of this one (registers, VMCOREINFO) whose memory is that of a machine which runs
// or stands still: read fills all of p from a physical address, or says why not. ranges are where its memory is, ascending.
func (c *Core) WithMemory(ranges []Range, read func(p []byte, addr uint64) error) *Core {
	live := &Core{Format: FormatLive, Machine: c.Machine, CPUs: c.CPUs, Info: c.Info, ranges: slices.Clone(ranges)}
	live.mem = liveMemory{live, read}
	return live
}

// FormatLive is no file.
const FormatLive Format = "live memory"

type liveMemory struct {
	c    *Core
	read func(p []byte, addr uint64) error
}

func (m liveMemory) readPhys(p []byte, addr uint64) error {
	in := func(r Range) bool { return addr >= r.Start && addr+uint64(len(p)) <= r.End }
	if !slices.ContainsFunc(m.c.ranges, in) {
		return &MissingError{Addr: addr, Reason: NotDumped}
	}
	if err := m.read(p, addr); err != nil {
		return &MissingError{Addr: addr, Reason: NotDumped, Err: err}
	}
	return nil
}
