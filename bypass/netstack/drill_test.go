package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/fathom-trace/fathom/bypass/xsk"
)

// drill is a stack whose only queue is a script: it says what comes from the other host, and what must go to it, in order. A line is
//
//	< FLAGS fields     a segment comes
//	> FLAGS fields     a segment goes: the fields that are named are so; what was sent before may be sent again ahead of it
//	listen, connect, write N, read N, eof, closewrite, close, fails ERRNO, is STATE   what the program does, and must get
//
// Fields are seq, ack, len, win, mss, wscale, ts VALUE, ecr VALUE (echoed), sack (permitted), block FROM-TO (selective), bad (checksum). Numbers
// count from each side's SYN, which is 0. Nothing is said about time, and a line of the program's that depends on a segment which came stands behind
// the answer to that.
type drill struct {
	t    *testing.T
	s    *Stack
	mu   sync.Mutex
	in   [][]byte
	wake chan struct{}
	out  chan []byte

	isn  uint32          // of the stack
	ts   uint32          // it sent last
	seen map[string]bool // what was sent
	port uint16          // of the stack
	l    *listener
	conn *conn
	done chan connected
	una  uint32 // what was acknowledged to it: a probe may have any byte before
	at   int    // bytes written, and read
	got  int
}

// connected is what became of connect.
type connected struct {
	conn *conn
	err  error
}

const theirISN, theirPort, listenPort = 7000, 4000, 80

var ourAddr, theirAddr = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

// What the queue of a drill is.

func (d *drill) recv() (all []arrived, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.in {
		all = append(all, arrived{b: b})
	}
	d.in = nil
	return all, nil
}

func (d *drill) free() {}
func (d *drill) room(n int) (all [][]byte) {
	for range n {
		all = append(all, make([]byte, 2048))
	}
	return all
}

func (d *drill) put(packets [][]byte) (int, error) {
	for _, p := range packets {
		d.out <- p
	}
	return len(packets), nil
}
func (d *drill) kick() {}
func (d *drill) prepare() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.in) > 0, nil
}

func (d *drill) calm() {}

func (d *drill) park(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.wake:
		return nil
	}
}
func (d *drill) stats() (xsk.Stats, error) { return xsk.Stats{}, nil }

// newDrill makes a stack on nothing: its neighbour is known, its ports are nobody's in the kernel.
func newDrill(t *testing.T) *drill {
	d := &drill{t: t, wake: make(chan struct{}, 1), out: make(chan []byte, 1<<12), seen: map[string]bool{}, done: make(chan connected, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	near := &neighbours{ctx: ctx, mtu: 1500, hops: map[netip.Addr]*hop{theirAddr: {mac: [6]byte{2}, src: ourAddr, until: now() + time.Hour}}, waiting: map[netip.Addr][]held{}}
	d.s = &Stack{near: near, link: newLink([]queue{d}, near, false, 1500)}
	var err error
	if d.s.gv, err = protocols(d.s.link, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := d.s.gv.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: protocol(ourAddr), AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(ourAddr.AsSlice()), PrefixLen: 24}}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.s.link.lanes[0].receive(ctx) }) // the context's end
	wg.Go(func() { d.s.link.lanes[0].kicker(ctx) })
	t.Cleanup(func() {
		d.s.gv.Destroy()
		cancel()
		wg.Wait()
	})
	return d
}

// fields are the words of a segment's line.
type fields struct {
	flags header.TCPFlags
	has   map[string]string
}

var flagNames = map[string]header.TCPFlags{"SYN": header.TCPFlagSyn, "ACK": header.TCPFlagAck, "FIN": header.TCPFlagFin, "RST": header.TCPFlagRst, "PSH": header.TCPFlagPsh}

func parseFields(t *testing.T, words []string) fields {
	f := fields{has: map[string]string{}}
	for i := 0; i < len(words); i++ {
		w := words[i]
		flag, ok := flagNames[w]
		switch {
		case ok:
			f.flags |= flag
		case w == "sack" || w == "bad":
			f.has[w] = "1"
		case i+1 < len(words):
			i++
			f.has[w] = words[i]
		default:
			t.Fatalf("%q has no value", w)
		}
	}
	return f
}

func (f fields) number(name string) uint32 {
	n, _ := strconv.ParseInt(f.has[name], 10, 64) // 0 if it is not there; it may be negative
	return uint32(n)
}

// comes has a segment come.
func (d *drill) comes(f fields) {
	var opts []byte
	add := func(b ...byte) { opts = append(opts, b...) }
	four := binary.BigEndian.AppendUint32
	if _, ok := f.has["mss"]; ok {
		add(header.TCPOptionMSS, 4, byte(f.number("mss")>>8), byte(f.number("mss")))
	}
	if f.has["sack"] != "" {
		add(header.TCPOptionSACKPermitted, 2)
	}
	if _, ok := f.has["wscale"]; ok {
		add(header.TCPOptionWS, 3, byte(f.number("wscale")))
	}
	if _, ok := f.has["ts"]; ok {
		add(header.TCPOptionTS, 10)
		opts = four(four(opts, f.number("ts")), d.ts)
	}
	if from, to, ok := strings.Cut(f.has["block"], "-"); ok {
		a, _ := strconv.Atoi(from)
		b, _ := strconv.Atoi(to)
		add(header.TCPOptionSACK, 10)
		opts = four(four(opts, d.isn+uint32(a)), d.isn+uint32(b))
	}
	for len(opts)%4 != 0 {
		add(header.TCPOptionNOP)
	}
	size := header.TCPMinimumSize + len(opts)
	seg := make([]byte, size, size+int(f.number("len")))
	copy(seg[header.TCPMinimumSize:], opts)
	seq := f.number("seq")
	for i := range f.number("len") {
		seg = append(seg, pattern(int(seq-1+i)))
	}
	d.una = max(d.una, f.number("ack"))
	win := uint16(65535)
	if _, ok := f.has["win"]; ok {
		win = uint16(f.number("win"))
	}
	h := header.TCP(seg)
	h.Encode(&header.TCPFields{SrcPort: theirPort, DstPort: d.port, SeqNum: theirISN + seq, AckNum: d.isn + f.number("ack"), DataOffset: uint8(size), Flags: f.flags, WindowSize: win})
	src, dst := tcpip.AddrFromSlice(theirAddr.AsSlice()), tcpip.AddrFromSlice(ourAddr.AsSlice())
	sum := ^checksum.Checksum(seg, header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(seg))))
	if f.has["bad"] != "" {
		sum++
	}
	h.SetChecksum(sum)
	b := make([]byte, 14+header.IPv4MinimumSize, 14+header.IPv4MinimumSize+len(seg))
	copy(b[6:], []byte{2})
	b[12] = 8
	ip := header.IPv4(b[14:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(header.IPv4MinimumSize + len(seg)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	d.mu.Lock()
	d.in = append(d.in, append(b, seg...))
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pattern is the byte at a place of a stream.
func pattern(at int) byte { return byte(at*7 + at>>8) }

// goes waits for a segment that has the fields. What was sent before is passed over, and acknowledgements alone are.
func (d *drill) goes(line string, f fields) {
	d.t.Helper()
	var passed []string
	for limit := time.After(time.Minute); ; {
		var h header.TCP
		select {
		case b := <-d.out:
			if h = header.TCP(b[14+header.IPv4MinimumSize:]); !header.IPv4(b[14:]).IsChecksumValid() {
				d.t.Fatalf("a wrong checksum: %x", b)
			}
		case <-limit:
			d.t.Fatalf("%s: it does not come; there came\n%s", line, strings.Join(passed, "\n"))
		}
		if h.Flags()&header.TCPFlagSyn != 0 && d.isn == 0 {
			d.isn, d.port = h.SequenceNumber(), h.SourcePort()
		}
		said := d.describe(h)
		text := h.Flags().String() + fmt.Sprint(said)
		again := d.seen[text]
		d.seen[text] = true
		if wrong := f.differ(h, said); wrong == "" {
			if ts, ok := said["ts"]; ok {
				d.ts = uint32(ts)
			}
			for i, c := range h.Payload() {
				if at := h.SequenceNumber() - d.isn + uint32(i); int32(at-d.una) >= 0 && c != pattern(int(at-1)) {
					d.t.Fatalf("%s: byte %d of the segment is not what was written", line, i)
				}
			}
			return
		} else if !again && (h.Flags()&^header.TCPFlagPsh != header.TCPFlagAck || len(h.Payload()) > 0) {
			d.t.Fatalf("%s: %s; there came %s, after\n%s", line, wrong, text, strings.Join(passed, "\n"))
		}
		passed = append(passed, text)
	}
}

// describe gives a segment's fields.
func (d *drill) describe(h header.TCP) map[string]int {
	m := map[string]int{"seq": int(h.SequenceNumber() - d.isn), "len": len(h.Payload()), "win": int(h.WindowSize())}
	if h.Flags()&header.TCPFlagAck != 0 {
		m["ack"] = int(h.AckNumber() - theirISN)
	}
	if h.Flags()&header.TCPFlagSyn != 0 {
		o := header.ParseSynOptions(h.Options(), h.Flags()&header.TCPFlagAck != 0)
		m["mss"], m["wscale"] = int(o.MSS), o.WS
		if o.TS {
			m["ts"], m["ecr"] = int(o.TSVal), int(o.TSEcr)
		}
		if o.SACKPermitted {
			m["sack"] = 1
		}
		return m
	}
	o := h.ParsedOptions()
	if o.TS {
		m["ts"], m["ecr"] = int(o.TSVal), int(o.TSEcr)
	}
	for _, b := range o.SACKBlocks {
		m[fmt.Sprintf("block %d-%d", b.Start-theirISN, b.End-theirISN)] = 1
	}
	return m
}

// differ says in what a segment is not as it should be; PSH is the sender's matter if it is not named.
func (f fields) differ(h header.TCP, said map[string]int) string {
	if got := h.Flags() &^ header.TCPFlagPsh; got != f.flags&^header.TCPFlagPsh || f.flags&header.TCPFlagPsh&^h.Flags() != 0 {
		return "its flags differ"
	}
	for name, want := range f.has {
		if name == "block" {
			name, want = "block "+want, "1"
		}
		got, ok := said[name]
		if n, err := strconv.Atoi(want); !ok || err == nil && n != got { // "some" is any
			return fmt.Sprintf("%s is not %s", name, want)
		}
	}
	return ""
}

// act does what the program does.
func (d *drill) act(words []string) error {
	n := 0
	if len(words) > 1 {
		n, _ = strconv.Atoi(words[1])
	}
	if d.l != nil && d.conn == nil && words[0] != "listen" {
		c, err := d.l.Accept()
		if err != nil {
			return err
		}
		d.conn = c.(*conn)
	}
	if d.conn != nil {
		d.conn.SetDeadline(time.Now().Add(time.Minute))
	}
	switch words[0] {
	case "listen":
		d.port = listenPort
		d.l = &listener{s: d.s, addr: &net.TCPAddr{}, ended: make(chan struct{}), keep: &keep{release: func() {}, n: 1}}
		return d.l.listen(protocol(ourAddr), ourAddr, listenPort, false)
	case "connect":
		go func() {
			c, err := d.s.connect(d.t.Context(), nil, full(netip.AddrPortFrom(theirAddr, theirPort)), protocol(ourAddr))
			d.done <- connected{c, err}
		}()
	case "connected":
		c := <-d.done
		d.conn = c.conn
		return c.err
	case "write":
		b := make([]byte, n)
		for i := range b {
			b[i] = pattern(d.at + i)
		}
		d.at += n
		_, err := d.conn.Write(b)
		return err
	case "read":
		got, want := make([]byte, n), make([]byte, n)
		for i := range want {
			want[i] = pattern(d.got + i)
		}
		d.got += n
		if _, err := io.ReadFull(d.conn, got); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return errors.New("what is read is not what came")
		}
	case "eof":
		if m, err := d.conn.Read(make([]byte, 1)); err != io.EOF {
			return fmt.Errorf("%d bytes, %w", m, err)
		}
	case "fails":
		if m, err := d.conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), strings.Join(words[1:], " ")) {
			return fmt.Errorf("%d bytes, %w", m, err)
		}
	case "is":
		state := func() string { return tcp.EndpointState(d.conn.ep.State()).String() }
		for began := time.Now(); state() != words[1]; time.Sleep(time.Millisecond) {
			if time.Since(began) > time.Minute {
				return fmt.Errorf("the state is %s", state())
			}
		}
	case "closewrite":
		return d.conn.CloseWrite()
	case "close":
		return d.conn.Close()
	case "patient": // only what acknowledgements say counts, until much later
		o := tcpip.TCPMinRTOOption(40 * time.Second)
		if err := d.s.gv.SetTransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			return errors.New(err.String())
		}
	default:
		return os.ErrInvalid
	}
	return nil
}

func (d *drill) run(script string) {
	d.t.Helper()
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)
		switch {
		case line == "":
		case words[0] == "<":
			d.comes(parseFields(d.t, words[1:]))
		case words[0] == ">":
			d.goes(line, parseFields(d.t, words[1:]))
		default:
			if err := d.act(words); err != nil {
				d.t.Fatalf("%s: %v", line, err)
			}
		}
	}
}

// Ways to a connection: without options, and with all.
const (
	plain = `
	listen
	< SYN seq 0 mss 1000
	> SYN ACK seq 0 ack 1 mss 1460
	< ACK seq 1 ack 1
	`
	rich = `
	listen
	< SYN seq 0 mss 1000 sack ts 100 wscale 2
	> SYN ACK seq 0 ack 1 mss 1460 sack wscale some ecr 100
	< ACK seq 1 ack 1 ts 101
	`
)

var drills = map[string]string{
	"data both ways": plain + `
	< ACK PSH seq 1 ack 1 len 5
	> ACK ack 6
	read 5
	write 2500
	> ACK seq 1 len 1000
	> ACK seq 1001 len 1000
	> ACK seq 2001 len 500
	< ACK seq 6 ack 2501
	`,
	"options": rich + `
	write 1500
	> ACK seq 1 len 960 ecr 101
	> ACK seq 961 len 540
	< ACK seq 1 ack 1501 ts 102 win 100 len 1
	> ACK ack 2 ecr 102
	write 1000
	> ACK seq 1501 len 400 ecr 102
	< ACK seq 2 ack 1901 ts 103
	> ACK seq 1901 len 600
	< ACK seq 2 ack 2501 ts 104
	read 1
	`,
	"active open": `
	connect
	> SYN seq 0 mss 1460 sack wscale some ts some
	< SYN ACK seq 0 ack 1 mss 1400 sack ts 7 wscale 0
	> ACK seq 1 ack 1 ecr 7
	connected
	write 10
	> ACK seq 1 len 10
	< ACK seq 1 ack 11 ts 8
	`,
	"out of order": rich + `
	< ACK seq 6 ack 1 len 5 ts 102
	> ACK ack 1 block 6-11
	< ACK seq 1 ack 1 len 5 ts 102
	> ACK ack 11
	read 10
	< ACK seq 1 ack 1 len 5 ts 102
	> ACK ack 11
	`,
	"a wrong checksum": plain + `
	< ACK seq 1 ack 1 len 5 bad
	< ACK seq 6 ack 1 len 5
	> ACK ack 1
	< ACK seq 1 ack 1 len 5
	> ACK ack 11
	read 10
	`,
	"timeout": plain + `
	write 700
	> ACK seq 1 len 700
	> ACK seq 1 len 700
	> ACK seq 1 len 700
	< ACK seq 1 ack 701
	write 10
	> ACK seq 701 len 10
	< ACK seq 1 ack 711
	`,
	"timeout of SYN ACK": `
	listen
	< SYN seq 0 mss 1000
	> SYN ACK seq 0 ack 1
	> SYN ACK seq 0 ack 1
	< ACK seq 1 ack 1
	write 1
	> ACK seq 1 len 1
	`,
	"three acknowledgements again": "patient\n" + plain + `
	write 6000
	> ACK seq 1 len 1000
	> ACK seq 1001 len 1000
	> ACK seq 2001 len 1000
	> ACK seq 3001 len 1000
	> ACK seq 4001 len 1000
	> ACK seq 5001 len 1000
	< ACK seq 1 ack 1001
	< ACK seq 1 ack 1001
	< ACK seq 1 ack 1001
	< ACK seq 1 ack 1001
	> ACK seq 1001 len 1000
	< ACK seq 1 ack 6001
	write 10
	> ACK seq 6001 len 10
	`,
	"selective acknowledgements": rich + `
	write 4800
	> ACK seq 1 len 960
	> ACK seq 961 len 960
	> ACK seq 1921 len 960
	> ACK seq 2881 len 960
	> ACK seq 3841 len 960
	< ACK seq 1 ack 1 ts 102 block 961-1921
	< ACK seq 1 ack 1 ts 102 block 961-2881
	< ACK seq 1 ack 1 ts 102 block 961-4801
	> ACK seq 1 len 960
	< ACK seq 1 ack 4801 ts 103
	write 10
	> ACK seq 4801 len 10
	`,
	"no window": plain + `
	write 300
	> ACK seq 1 len 300
	< ACK seq 1 ack 301 win 0 len 1
	> ACK ack 2
	write 300
	> ACK seq 300 ack 2
	< ACK seq 2 ack 301 win 0
	> ACK seq 300 ack 2
	< ACK seq 2 ack 301 win 1000
	> ACK seq 301 len 300
	< ACK seq 2 ack 601
	read 1
	`,
	"they close": plain + `
	< FIN ACK seq 1 ack 1
	> ACK ack 2
	eof
	is CLOSE-WAIT
	write 5
	> ACK seq 1 len 5 ack 2
	< ACK seq 2 ack 6
	close
	> FIN ACK seq 6 ack 2
	< ACK seq 2 ack 7
	`,
	"we close": plain + `
	closewrite
	> FIN ACK seq 1 ack 1
	< ACK seq 1 ack 2
	is FIN-WAIT2
	< ACK seq 1 ack 2 len 5
	> ACK ack 6
	read 5
	< FIN ACK seq 6 ack 2
	> ACK seq 2 ack 7
	eof
	is TIME-WAIT
	`,
	"both close": plain + `
	closewrite
	> FIN ACK seq 1 ack 1
	is FIN-WAIT1
	< FIN ACK seq 1 ack 1
	> ACK seq 2 ack 2
	is CLOSING
	< ACK seq 2 ack 2
	is TIME-WAIT
	`,
	"reset": plain + `
	< RST seq 1
	fails connection reset
	`,
	"resets out of the window": plain + `
	< RST seq -1000
	< RST seq 10000000
	< ACK seq 1 ack 1 len 5
	> ACK ack 6
	read 5
	`,
	"a reset within the window": plain + `
	< RST seq 100
	> ACK seq 1 ack 1
	< ACK seq 1 ack 1 len 5
	> ACK ack 6
	read 5
	`,
	"SYN within a connection": plain + `
	< SYN seq 100
	> ACK seq 1 ack 1
	< ACK seq 1 ack 1 len 5
	> ACK ack 6
	read 5
	`,
	"nobody listens": `
	connect
	> SYN seq 0
	< RST ACK seq 0 ack 1
	`,
}

// TestDrills: what a host says on the wire, segment by segment, is what RFC 9293, 7323, 2018, 5681 and 5961 want.
func TestDrills(t *testing.T) {
	for name, script := range drills {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDrill(t)
			d.run(script)
			if name == "nobody listens" {
				if c := <-d.done; !errors.Is(c.err, syscall.ECONNREFUSED) {
					t.Error(c.err)
				}
			}
		})
	}
}
