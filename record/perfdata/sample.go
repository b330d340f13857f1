package perfdata

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/traceevent"
)

// Bits of sample_type (enum perf_event_sample_format).
const (
	sampleIP          = 1 << 0
	sampleTID         = 1 << 1
	sampleTime        = 1 << 2
	sampleAddr        = 1 << 3
	sampleRead        = 1 << 4
	sampleCallchain   = 1 << 5
	sampleID          = 1 << 6
	sampleCPU         = 1 << 7
	samplePeriod      = 1 << 8
	sampleStreamID    = 1 << 9
	sampleRaw         = 1 << 10
	sampleBranch      = 1 << 11
	sampleRegsUser    = 1 << 12
	sampleStackUser   = 1 << 13
	sampleWeight      = 1 << 14
	sampleDataSrc     = 1 << 15
	sampleIdentifier  = 1 << 16
	sampleTransaction = 1 << 17
	sampleRegsIntr    = 1 << 18
	samplePhysAddr    = 1 << 19
	sampleAux         = 1 << 20
	sampleCgroup      = 1 << 21
	sampleDataPage    = 1 << 22
	sampleCodePage    = 1 << 23
	sampleWeightStr   = 1 << 24
)

// Flags of attributes (the bits of perf_event_attr).
const (
	flagSampleIDAll = 1 << 18
)

// Bits of read_format.
const (
	readEnabled = 1 << 0
	readRunning = 1 << 1
	readID      = 1 << 2
	readGroup   = 1 << 3
	readLost    = 1 << 4
)

// sample is what is read of one PERF_RECORD_SAMPLE, in the order in which it stands there.
type sample struct {
	id, ip, time, addr, period, weight, datasrc, phys uint64
	pid, tid                                          uint32
	cpu                                               uint32
	chain                                             []byte
	raw                                               []byte
	attr                                              *Attr
}

// sampleField is a field of the format that is made for samples of no tracepoint.
type sampleField struct {
	bit  uint64
	name string
	typ  string
	get  func(*sample) uint64
}

var sampleFields = []sampleField{
	{sampleIP, "ip", "void *", func(s *sample) uint64 { return s.ip }},
	{sampleAddr, "addr", "void *", func(s *sample) uint64 { return s.addr }},
	{samplePeriod, "period", "unsigned long", func(s *sample) uint64 { return s.period }},
	{sampleWeight, "weight", "unsigned long", func(s *sample) uint64 { return s.weight }},
	{sampleWeightStr, "weight", "unsigned long", func(s *sample) uint64 { return s.weight }},
	{sampleDataSrc, "data_src", "unsigned long", func(s *sample) uint64 { return s.datasrc }},
	{samplePhysAddr, "phys_addr", "void *", func(s *sample) uint64 { return s.phys }},
}

// firstMade is the ID of the first format that is made; the kernel's own stay below.
const firstMade = 1 << 15

// plan finds or makes the format that samples of an attribute are given as.
func (a *Attr) plan(systems map[int]*traceevent.Format) {
	if a.Type == typeTracepoint && a.SampleType&sampleRaw != 0 {
		if f := systems[int(a.Config)]; f != nil {
			a.format, a.Name = f, f.System+":"+f.Name
			return
		}
	}
	common := func(typ, name string, off, size int, signed bool) traceevent.Field {
		return traceevent.Field{Type: typ, Name: name, Offset: off, Size: size, Signed: signed, Common: true, ArrayLen: -1}
	}
	f := &traceevent.Format{System: "perf", Name: a.Name, ID: firstMade + int(a.Config&0xfff) + int(a.Type&7)<<12, Fields: []traceevent.Field{
		common("unsigned short", "common_type", 0, 2, false), common("unsigned char", "common_flags", 2, 1, false),
		common("unsigned char", "common_preempt_count", 3, 1, false), common("int", "common_pid", 4, 4, true)}}
	a.size = 8
	for _, d := range sampleFields {
		if a.SampleType&d.bit != 0 {
			f.Fields = append(f.Fields, traceevent.Field{Type: d.typ, Name: d.name, Offset: a.size, Size: 8, ArrayLen: -1})
			a.fields = append(a.fields, d)
			a.size += 8
		}
	}
	if a.SampleType&sampleCallchain != 0 {
		f.Fields = append(f.Fields, traceevent.Field{Type: "unsigned long", Name: "callchain", Offset: a.size, Size: 4, DataLoc: true})
		a.size += 8
	}
	if a.SampleType&sampleRaw != 0 { // bpf-output, or a tracepoint whose format is missing
		f.Fields = append(f.Fields, traceevent.Field{Type: "u8", Name: "raw", Offset: a.size, Size: 4, DataLoc: true})
		a.size += 8
	}
	a.format = f
}

// record lays a sample out as its format says; dst is used again.
func (a *Attr) record(dst []byte, s *sample) []byte {
	if a.size == 0 { // a tracepoint
		return s.raw
	}
	le := binary.LittleEndian
	if cap(dst) < a.size {
		dst = make([]byte, a.size, a.size+1024)
	}
	dst = dst[:a.size]
	clear(dst)
	le.PutUint16(dst, uint16(a.format.ID))
	le.PutUint32(dst[4:], s.tid)
	at := 8
	for i := range a.fields {
		le.PutUint64(dst[at:], a.fields[i].get(s))
		at += 8
	}
	tail := func(b []byte) {
		b = b[:min(len(b), 1<<15)]
		le.PutUint32(dst[at:], uint32(len(b))<<16|uint32(len(dst)))
		at += 8
		dst = append(dst, b...)
	}
	if a.SampleType&sampleCallchain != 0 {
		tail(s.chain)
	}
	if a.SampleType&sampleRaw != 0 {
		tail(s.raw)
	}
	return dst
}

// read takes a sample apart, in the order of perf_output_sample of kernel/events/core.c. It stops where nothing is read
// behind: the registers and stacks of user programs.
func (s *sample) read(c *bin.Cursor, a *Attr) {
	t := a.SampleType
	u64 := func(bit uint64, to *uint64) {
		if t&bit != 0 {
			*to = c.U64()
		}
	}
	var skip uint64
	u64(sampleIdentifier, &s.id)
	u64(sampleIP, &s.ip)
	if t&sampleTID != 0 {
		s.pid, s.tid = c.U32(), c.U32()
	}
	u64(sampleTime, &s.time)
	u64(sampleAddr, &s.addr)
	u64(sampleID, &s.id)
	u64(sampleStreamID, &skip)
	if t&sampleCPU != 0 {
		s.cpu = c.U32()
		c.U32()
	}
	u64(samplePeriod, &s.period)
	if t&sampleRead != 0 {
		skipRead(c, a.ReadFormat)
	}
	if t&sampleCallchain != 0 {
		if n := c.U64(); n <= uint64(c.Len()/8) {
			s.chain = c.Bytes(int(n) * 8)
		} else {
			c.Fail("a call chain of %d frames", n)
		}
	}
	if t&sampleRaw != 0 {
		s.raw = c.Bytes(int(c.U32()))
		c.Align(8)
	}
	if t&(sampleBranch|sampleRegsUser|sampleStackUser) != 0 {
		return
	}
	u64(sampleWeight, &s.weight)
	u64(sampleWeightStr, &s.weight)
	u64(sampleDataSrc, &s.datasrc)
	u64(sampleTransaction, &skip)
	if t&sampleRegsIntr != 0 {
		return
	}
	u64(samplePhysAddr, &s.phys)
}

// skipRead passes over the values of counters.
func skipRead(c *bin.Cursor, format uint64) {
	each := 8
	if format&readID != 0 {
		each += 8
	}
	if format&readLost != 0 {
		each += 8
	}
	times := 0
	for _, bit := range []uint64{readEnabled, readRunning} {
		if format&bit != 0 {
			times += 8
		}
	}
	if format&readGroup == 0 {
		c.Skip(each + times)
		return
	}
	n := c.U64()
	c.Skip(times)
	if n > uint64(c.Len()/each) {
		c.Fail("a group of %d counters", n)
		return
	}
	c.Skip(int(n) * each)
}
