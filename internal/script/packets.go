package script

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/probe"
)

// packets writes what skboutput sends to pcap files, one for each name that a program gives.
type packets struct {
	r      *probe.PacketReader
	events []*ir.Event
	files  map[string]*pcapFile
	boot   int64 // real time minus boot time, ns
	quit   chan struct{}
	ended  chan error     // what run returned
	sent   map[int]uint64 // by the unit that sent them
}

type pcapFile struct {
	f *os.File
	w *bufio.Writer
}

// openPackets makes the files, so that one that cannot be written is known before anything is attached.
func (r *runner) openPackets() error {
	pr, err := r.sess.Packets(r.o.Config.PerfRBPages * os.Getpagesize())
	if err != nil || pr == nil {
		return err
	}
	p := &packets{r: pr, events: r.comp.Prog.Events, files: map[string]*pcapFile{}, sent: map[int]uint64{}, quit: make(chan struct{}),
		ended: make(chan error, 1), boot: int64(clock(unix.CLOCK_REALTIME)) - int64(bootNanos())}
	r.packets = p
	for _, e := range r.comp.Prog.Events {
		if e.Kind != ir.EvPacket || p.files[e.Fmt] != nil {
			continue
		}
		f, err := os.Create(e.Fmt)
		if err != nil {
			p.closeFiles()
			p.r.Close()
			r.packets = nil
			return fmt.Errorf("open packet file: %w", err)
		}
		p.files[e.Fmt] = &pcapFile{f, bufio.NewWriter(f)}
		p.files[e.Fmt].w.Write(pcapHeader())
	}
	go func() { p.ended <- p.run() }()
	return nil
}

// pcapHeader is the head of a file of packets without link layer, with times in ns (draft-ietf-opsawg-pcap).
func pcapHeader() []byte {
	const linkRaw, snap = 101, 0xfffff
	b := make([]byte, 24)
	le := binary.LittleEndian
	le.PutUint32(b, 0xa1b23c4d)
	le.PutUint16(b[4:], 2)
	le.PutUint16(b[6:], 4)
	le.PutUint32(b[16:], snap)
	le.PutUint32(b[20:], linkRaw)
	return b
}

// run writes packets until it is told to quit, and then those that wait.
func (p *packets) run() error {
	for last := false; ; {
		rec, err := p.r.Next(time.Now().Add(poll))
		if err == nil && rec != nil {
			err = p.write(rec)
		}
		switch {
		case err != nil || rec == nil && last:
			return err
		case rec == nil:
			select {
			case <-p.quit:
				last = true
			default:
			}
		}
	}
}

func (p *packets) write(rec []byte) error {
	if len(rec) < build.PacketRecord {
		return nil
	}
	le := binary.LittleEndian
	id, ns, n, skip := le.Uint64(rec), le.Uint64(rec[8:]), le.Uint64(rec[16:]), le.Uint64(rec[24:])
	data := rec[build.PacketRecord:]
	if id >= uint64(len(p.events)) {
		return nil
	}
	data = data[:min(n, uint64(len(data)))] // records are padded
	data = data[min(skip, uint64(len(data))):]
	ev := p.events[id]
	f := p.files[ev.Fmt]
	if f == nil {
		return nil
	}
	p.sent[ev.Unit]++
	t := ns + uint64(p.boot)
	var head [16]byte
	le.PutUint32(head[:], uint32(t/1e9))
	le.PutUint32(head[4:], uint32(t%1e9))
	le.PutUint32(head[8:], uint32(len(data)))
	le.PutUint32(head[12:], uint32(len(data)))
	f.w.Write(head[:])
	if _, err := f.w.Write(data); err != nil {
		return fmt.Errorf("write packet file %s: %w", ev.Fmt, err)
	}
	return nil
}

// close ends run, which writes what waits, and closes the files; the first error is given. Nothing may send any more.
func (p *packets) close() error {
	close(p.quit)
	err := <-p.ended
	if cerr := p.closeFiles(); err == nil {
		err = cerr
	}
	p.r.Close()
	return err
}

func (p *packets) closeFiles() error {
	var first error
	for name, f := range p.files {
		err := f.w.Flush()
		if cerr := f.f.Close(); err == nil {
			err = cerr
		}
		if err != nil && first == nil {
			first = fmt.Errorf("write packet file %s: %w", name, err)
		}
	}
	return first
}
