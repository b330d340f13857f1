// Package remote speaks the GDB remote serial protocol (gdb manual, appendix E) to a stub, such as QEMU's -gdb: registers
// and memory, virtual and physical, are read and written, breakpoints set, the machine stopped and continued. It knows x86-64 registers only.
//
// A connected stub has stopped the machine: [Client.Close] lets it go on.
package remote

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Limits on what a stub may send.
const (
	maxPacket = 1 << 20
	maxRetry  = 3
	chunk     = 2048 // bytes of memory in one packet: QEMU's buffer holds 4096 hex digits
)

// FaultError is memory that the stub could not read or write.
type FaultError struct {
	Addr uint64
	Code string // the stub's, E14 in QEMU
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("memory at %#x: the stub says %s", e.Addr, e.Code)
}

// ErrUnsupported is a request that the stub does not know: it answered with nothing.
var ErrUnsupported = errors.New("the stub does not support it")

// Client is one connection. It is for one goroutine.
type Client struct {
	c     net.Conn
	r     *bufio.Reader
	noAck bool
	phys  bool // addresses are physical: QEMU's PhyMemMode
	buf   []byte
}

// New takes a connected stub. The Client owns c, also if New fails.
func New(c net.Conn) (*Client, error) {
	k := &Client{c: c, r: bufio.NewReaderSize(c, 64<<10)}
	// QEMU stops the machine when a client connects. Acknowledgements are of use on serial lines only.
	if _, err := k.call("qSupported:hwbreak+;swbreak+"); err != nil {
		return nil, errors.Join(fmt.Errorf("greet gdb stub: %w", err), c.Close())
	}
	if ans, err := k.call("QStartNoAckMode"); err == nil && ans == "OK" {
		k.noAck = true
	}
	return k, nil
}

// Abandon ends the connection and leaves the machine as it is, stopped: for who started it before will do so again.
func (k *Client) Abandon() error { return k.c.Close() }

// Close lets the machine go on and ends the connection (D).
func (k *Client) Close() error {
	_, err := k.call("D")
	return errors.Join(err, k.c.Close())
}

// SetDeadline bounds all that follows.
func (k *Client) SetDeadline(t time.Time) error { return k.c.SetDeadline(t) }

// send writes $data#checksum and waits for its acknowledgement.
func (k *Client) send(data string) error {
	for range maxRetry {
		if _, err := fmt.Fprintf(k.c, "$%s#%02x", data, sum(data)); err != nil {
			return err
		}
		if k.noAck {
			return nil
		}
		for {
			b, err := k.r.ReadByte()
			if err != nil {
				return err
			}
			if b == '+' {
				return nil
			}
			if b == '-' {
				break
			}
		}
	}
	return errors.New("the stub refuses every packet")
}

func sum(s string) (n byte) {
	for i := range len(s) {
		n += s[i]
	}
	return n
}

// receive reads one packet.
func (k *Client) receive() (string, error) {
	for range maxRetry {
		data, ok, err := k.packet()
		if err != nil {
			return "", err
		}
		if !k.noAck {
			ack := "+"
			if !ok {
				ack = "-"
			}
			if _, err := io.WriteString(k.c, ack); err != nil {
				return "", err
			}
		}
		if ok {
			return data, nil
		}
		if k.noAck {
			break
		}
	}
	return "", errors.New("a packet has a wrong checksum")
}

// packet reads up to the next packet's end; ok says that its checksum holds. } escapes a byte, * repeats one.
func (k *Client) packet() (data string, ok bool, err error) {
	for b := byte(0); b != '$'; {
		if b, err = k.r.ReadByte(); err != nil {
			return "", false, err
		}
	}
	k.buf = k.buf[:0]
	var got byte
	for whole := false; !whole; { // by as much as is here
		part, err := k.r.ReadSlice('#')
		whole = err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return "", false, err
		}
		if whole {
			part = part[:len(part)-1]
		}
		for _, b := range part {
			got += b
		}
		k.buf = append(k.buf, part...)
		if len(k.buf) > maxPacket {
			return "", false, fmt.Errorf("a packet is over %d bytes", maxPacket)
		}
	}
	data, err = expand(k.buf)
	if err != nil {
		return "", false, err
	}
	var tail [2]byte
	if _, err := io.ReadFull(k.r, tail[:]); err != nil {
		return "", false, err
	}
	want, err := strconv.ParseUint(string(tail[:]), 16, 8)
	return data, err == nil && byte(want) == got, nil
}

// expand undoes escapes and runs; a packet may become no longer than one may be.
func expand(b []byte) (string, error) {
	if bytes.IndexByte(b, '}') < 0 && bytes.IndexByte(b, '*') < 0 {
		return string(b), nil
	}
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != '}' && b[i] != '*' {
			out = append(out, b[i])
			continue
		}
		if i++; i == len(b) {
			return "", errors.New("a packet ends in the middle of an escape")
		}
		if b[i-1] == '}' {
			out = append(out, b[i]^0x20)
			continue
		}
		if len(out) == 0 || b[i] < 29+3 {
			return "", fmt.Errorf("a run of %d after nothing", int(b[i])-29)
		}
		last := out[len(out)-1]
		for range b[i] - 29 {
			out = append(out, last)
		}
		if len(out) > maxPacket {
			return "", fmt.Errorf("a packet is over %d bytes", maxPacket)
		}
	}
	return string(out), nil
}

// call sends a request and gives the answer.
func (k *Client) call(req string) (string, error) {
	if err := k.send(req); err != nil {
		return "", err
	}
	return k.receive()
}

// want is call for requests whose answer is OK.
func (k *Client) want(what, req string) error {
	ans, err := k.call(req)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case ans == "":
		return fmt.Errorf("%s: %w", what, ErrUnsupported)
	case ans != "OK":
		return fmt.Errorf("%s: the stub says %s", what, ans)
	}
	return nil
}

// ReadVirt fills p from the virtual address addr, as the stopped CPU sees it. It is whole, or a *[FaultError].
func (k *Client) ReadVirt(p []byte, addr uint64) error {
	if err := k.physical(false); err != nil {
		return err
	}
	return k.read(p, addr)
}

// ReadPhys fills p from the physical address addr. QEMU alone can do it (Qqemu.PhyMemMode).
func (k *Client) ReadPhys(p []byte, addr uint64) error {
	if err := k.physical(true); err != nil {
		return err
	}
	return k.read(p, addr)
}

func (k *Client) physical(on bool) error {
	if k.phys == on {
		return nil
	}
	mode := "0"
	if on {
		mode = "1"
	}
	if err := k.want("choose physical memory", "Qqemu.PhyMemMode:"+mode); err != nil {
		return err
	}
	k.phys = on
	return nil
}

// maxAhead is how many requests for memory are sent before the first is answered.
const maxAhead = 16

func (k *Client) read(p []byte, addr uint64) error {
	for len(p) > 0 {
		n, err := k.readAhead(p, addr)
		if err != nil {
			return err
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// readAhead asks for the first chunks of p at once, where no acknowledgements go between, and gives how many bytes came without a
// gap: fewer than p's if there is more, or the stub gave less than was asked for.
func (k *Client) readAhead(p []byte, addr uint64) (got int, err error) {
	ahead := 1
	if k.noAck {
		ahead = min((len(p)+chunk-1)/chunk, maxAhead)
	}
	for i := range ahead {
		if err := k.send(fmt.Sprintf("m%x,%x", addr+uint64(i*chunk), min(len(p)-i*chunk, chunk))); err != nil {
			return 0, fmt.Errorf("read memory: %w", err)
		}
	}
	gap := false
	for i := range ahead { // each is received, or the next request would be answered by it
		ans, rerr := k.receive()
		if rerr != nil {
			return 0, fmt.Errorf("read memory: %w", rerr)
		}
		part := p[i*chunk : min(len(p), (i+1)*chunk)]
		b, herr := hex.DecodeString(ans)
		switch {
		case gap || err != nil:
		case strings.HasPrefix(ans, "E") || herr != nil || len(b) == 0 || len(b) > len(part):
			err = &FaultError{Addr: addr + uint64(i*chunk), Code: fmt.Sprintf("%.16q", ans)}
		default:
			got += copy(part, b)
			gap = len(b) < len(part)
		}
	}
	return got, err
}

// WriteVirt writes p to addr.
func (k *Client) WriteVirt(p []byte, addr uint64) error {
	if err := k.physical(false); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), chunk)
		if err := k.want(fmt.Sprintf("write memory at %#x", addr), fmt.Sprintf("M%x,%x:%x", addr, n, p[:n])); err != nil {
			return err
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// Registers are those of one CPU of x86-64, in the order of gdb's i386:x86-64 description.
type Registers struct {
	RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	RIP                                    uint64
	EFLAGS, CS, SS, DS, ES, FS, GS         uint32
}

// registersLen is what a g packet has at least: 17 of 8 bytes, 7 of 4.
const registersLen = 17*8 + 7*4

// Registers reads the registers of the CPU chosen by [Client.Thread].
func (k *Client) Registers() (r Registers, err error) {
	ans, err := k.call("g")
	if err != nil {
		return r, fmt.Errorf("read registers: %w", err)
	}
	b, err := hex.DecodeString(ans)
	if err != nil || len(b) < registersLen {
		return r, fmt.Errorf("read registers: the stub gives %d bytes: %.16q", len(b), ans)
	}
	_, err = binary.Decode(b[:registersLen], binary.LittleEndian, &r)
	return r, err
}

// Threads lists the CPUs: QEMU's are 1, 2, ….
func (k *Client) Threads() (ids []int, err error) {
	for req := "qfThreadInfo"; ; req = "qsThreadInfo" {
		ans, err := k.call(req)
		if err != nil {
			return nil, fmt.Errorf("list CPUs: %w", err)
		}
		if ans == "l" || ans == "" {
			return ids, nil
		}
		for s := range strings.SplitSeq(strings.TrimPrefix(ans, "m"), ",") {
			if i := strings.LastIndexByte(s, '.'); i >= 0 { // p1.2, with multiprocess+
				s = s[i+1:]
			}
			id, err := strconv.ParseInt(s, 16, 32)
			if err != nil || len(ids) >= 4096 {
				return nil, fmt.Errorf("list CPUs: the stub says %.40q", ans)
			}
			ids = append(ids, int(id))
		}
	}
}

// Thread chooses the CPU that registers and memory are read of.
func (k *Client) Thread(id int) error { return k.want("choose CPU", fmt.Sprintf("Hg%x", id)) }

// BreakKind is a kind of breakpoint, as in the packets Z0 to Z4.
type BreakKind int

// The kinds.
const (
	Software BreakKind = iota // an instruction is replaced
	Hardware                  // a debug register
	WriteWatch
	ReadWatch
	AccessWatch
)

// Break sets a breakpoint. size is 1 for instructions, and the length of what is watched.
func (k *Client) Break(kind BreakKind, addr uint64, size int) error {
	return k.want(fmt.Sprintf("set breakpoint at %#x", addr), fmt.Sprintf("Z%d,%x,%x", kind, addr, size))
}

// Unbreak takes a breakpoint away.
func (k *Client) Unbreak(kind BreakKind, addr uint64, size int) error {
	return k.want(fmt.Sprintf("remove breakpoint at %#x", addr), fmt.Sprintf("z%d,%x,%x", kind, addr, size))
}

// Stop is why the machine stopped.
type Stop struct {
	Signal int // 5, SIGTRAP, at a breakpoint; 2, SIGINT, when it was asked to
	Thread int // CPU; 0 if the stub does not say
}

// Continue lets the machine run until it stops.
func (k *Client) Continue() (Stop, error) { return k.resume("c") }

// Step executes one instruction of the chosen CPU.
func (k *Client) Step() (Stop, error) { return k.resume("s") }

func (k *Client) resume(req string) (s Stop, err error) {
	ans, err := k.call(req)
	if err != nil {
		return s, fmt.Errorf("let the machine run: %w", err)
	}
	return parseStop(ans)
}

// Interrupt stops a machine that [Client.Continue] let run; that call returns then. It may be called beside it.
func (k *Client) Interrupt() error {
	_, err := k.c.Write([]byte{3})
	return err
}

// parseStop reads S05 and T05thread:01;….
func parseStop(ans string) (s Stop, err error) {
	if len(ans) < 3 || (ans[0] != 'S' && ans[0] != 'T') {
		return s, fmt.Errorf("the machine did not stop: the stub says %.40q", ans)
	}
	n, err := strconv.ParseUint(ans[1:3], 16, 8)
	if err != nil {
		return s, fmt.Errorf("the stub's stop %.40q: %w", ans, err)
	}
	s.Signal = int(n)
	for kv := range strings.SplitSeq(ans[3:], ";") {
		if v, ok := strings.CutPrefix(kv, "thread:"); ok {
			id, err := strconv.ParseInt(v[strings.LastIndexByte(v, '.')+1:], 16, 32)
			if err != nil {
				return s, fmt.Errorf("the stub's stop %.40q: %w", ans, err)
			}
			s.Thread = int(id)
		}
	}
	return s, nil
}
