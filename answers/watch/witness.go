package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/netstate/changes"
	"github.com/fathom-trace/fathom/probe"
)

// sighting is what a program saw: a task that was at it.
type sighting struct {
	kind   recordKind
	boot   uint64 // CLOCK_BOOTTIME, ns
	pid    int
	tid    int
	uid    uint32
	cgroup uint64
	comm   string
	kernel bool // a thread of the kernel
	netns  uint64
	known  bool // netns was, when this was read
	socket uint64
	msg    []byte
	above  []Proc // parents
	stack  []uint64
	at     time.Time // when it was read
}

// pfKthread is PF_KTHREAD (include/linux/sched.h).
const pfKthread = 0x00200000

// decodeSighting reads a record; ok is false for one that is cut short.
func decodeSighting(b []byte) (s sighting, ok bool) {
	if len(b) < recSize {
		return s, false
	}
	le := binary.LittleEndian
	pt := le.Uint64(b[recPidTgid:])
	s = sighting{
		kind: recordKind(le.Uint64(b)), boot: le.Uint64(b[recTime:]), pid: int(pt >> 32), tid: int(uint32(pt)), uid: le.Uint32(b[recUIDGID:]),
		cgroup: le.Uint64(b[recCgroup:]), comm: cstring(b[recComm : recComm+16]), kernel: le.Uint32(b[recFlags:])&pfKthread != 0,
		netns: uint64(le.Uint32(b[recNetNS:])), socket: le.Uint64(b[recSocket:]),
	}
	for i := range parents {
		p := b[recParents+i*parentSize:]
		pid := int(le.Uint64(p))
		if pid <= 0 || pid == s.pid || len(s.above) > 0 && s.above[len(s.above)-1].PID == pid {
			break
		}
		s.above = append(s.above, Proc{PID: pid, Comm: cstring(p[8:24])})
	}
	switch n := le.Uint32(b[recMsgLen:]); {
	case s.kind == recSysctl:
		s.msg = bytes.Clone(b[recMsg:recStack])
	case n <= changes.MsgBytes:
		s.msg = bytes.Clone(b[recMsg : recMsg+n])
	}
	if n := int(int32(le.Uint32(b[recStackLen:]))); n > 0 && n <= 8*frames {
		for i := 0; i+8 <= n; i += 8 {
			if a := le.Uint64(b[recStack+i:]); a != 0 {
				s.stack = append(s.stack, a)
			}
		}
	}
	return s, true
}

// setting reads the name, the value before and the value written of a sysctl. Names have slashes for the parts here.
func (s *sighting) setting() (name, old, now string) {
	text := func(from, to int) string { return strings.TrimRight(cstring(s.msg[from:to]), "\n") }
	name = strings.NewReplacer("/", ".", ".", "/").Replace(text(sysctlName, sysctlOld))
	return name, text(sysctlOld, sysctlNew), text(sysctlNew, sysctlNew+sysctlText)
}

func cstring(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// witness runs programs and hands on what they saw.
type witness struct {
	seen  chan sighting
	done  chan struct{}
	wg    sync.WaitGroup
	parts []*part
}

// part is one program.
type part struct {
	sess *probe.Session
	ring *probe.Reader
	mean string                    // how it is attached
	read atomic.Pointer[time.Time] // when nothing was left to be read, the last time
}

// readWait is how long a reader sleeps at most before it looks if it should end.
const readWait = 100 * time.Millisecond

func newWitness() *witness {
	return &witness{seen: make(chan sighting, 4096), done: make(chan struct{})}
}

// add loads and attaches a source's program by the first means that works.
func (w *witness) add(world *probe.World, c code, s source, cpus int) error {
	var errs []error
	for _, t := range s.at {
		p, err := open(world, c, s, t, cpus)
		if err == nil {
			w.parts = append(w.parts, p)
			w.wg.Go(func() { w.read(p) })
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", t.Name, err))
	}
	return errors.Join(errs...)
}

func open(world *probe.World, c code, s source, t probe.Target, cpus int) (*part, error) {
	if t.Provider == "rawtracepoint" {
		params, _, err := world.Args(t)
		if err != nil {
			return nil, err
		}
		c.args = map[string]int{}
		for _, f := range params.Fields {
			c.args[f.Name] = f.Index
		}
	}
	e := emit.New(emit.Options{CPUs: cpus, Ring: s.ring})
	s.write(&c, e.Unit(t.Provider, 0, s.name))
	sess, err := probe.LoadEmit(e, [][]probe.Target{{t}}, probe.Options{World: world})
	if err != nil {
		return nil, err
	}
	p := &part{sess: sess, mean: t.Provider + ":" + t.Func}
	if p.ring, err = sess.Reader(); err == nil {
		if _, err = sess.Attach(); err == nil {
			return p, nil
		}
		p.ring.Close()
	}
	sess.Close()
	return nil, err
}

// readSince says if all that was seen before a moment was read and taken.
func (w *witness) readSince(at time.Time) bool {
	for _, p := range w.parts {
		if t := p.read.Load(); t == nil || !t.After(at) {
			return false
		}
	}
	return len(w.seen) == 0
}

func (w *witness) read(p *part) {
	for {
		if now := time.Now(); p.ring.Empty() {
			p.read.Store(&now)
		}
		select {
		case <-w.done:
			return
		default:
		}
		b, err := p.ring.Next(time.Now().Add(readWait))
		if err != nil {
			return
		}
		s, ok := decodeSighting(b)
		if b == nil || !ok {
			continue
		}
		s.at = time.Now()
		select {
		case w.seen <- s:
		case <-w.done:
			return
		}
	}
}

// lost counts sightings that did not arrive.
func (w *witness) lost() (n uint64) {
	for _, p := range w.parts {
		for _, a := range p.sess.Accounts() {
			n += a.LostRing + a.Missed
		}
	}
	return n
}

func (w *witness) close() {
	close(w.done)
	w.wg.Wait()
	for _, p := range w.parts {
		p.ring.Close()
		p.sess.Close()
	}
}
