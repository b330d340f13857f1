package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is what a message travels in.
type Protocol string

// The protocols of [Send] and [Listen].
const (
	ProtoUDP       Protocol = "udp"
	ProtoTCP       Protocol = "tcp"
	ProtoMulticast Protocol = "multicast" // UDP to a group
	ProtoRaw       Protocol = "raw"       // frames: the address is an interface
)

// Protocols are all there are.
func Protocols() []Protocol { return []Protocol{ProtoUDP, ProtoTCP, ProtoMulticast, ProtoRaw} }

// ErrProtocol is a protocol that is none.
var ErrProtocol = errors.New("no such protocol: udp, tcp, multicast or raw")

// EtherType is what frames carry if nothing else is said: IEEE 802's for local experiments (88B5).
const EtherType = 0x88b5

// SendOptions say what to send.
type SendOptions struct {
	Protocol  Protocol
	Addr      string // HOST:PORT; an interface for raw
	Dev       string // interface to send to a group from; "" is the kernel's choice
	Data      []byte
	Count     int     // messages; 1 if 0
	Rate      float64 // messages a second; 0 is as fast as it goes
	Dst       string  // MAC that frames go to; "" is all
	EtherType uint16
	Wait      time.Duration        // for an answer to each message; 0 does not wait
	Answer    func(p []byte) error // gets answers; may be nil
}

// Tally is what was sent or received.
type Tally struct {
	Messages int           `json:"messages"` // datagrams, frames; of TCP: writes, reads
	Bytes    int64         `json:"bytes"`
	Answers  int           `json:"answers,omitempty"`
	Refused  int           `json:"refused,omitempty"` // datagrams that an ICMP message said no one wants
	Took     time.Duration `json:"took_ns"`           // from the first message to the last
}

// PerSecond is the rate in messages and bytes a second; 0 if it cannot be said.
func (t Tally) PerSecond() (messages, bytes float64) {
	if s := t.Took.Seconds(); s > 0 && t.Messages > 1 {
		return float64(t.Messages) / s, float64(t.Bytes) / s
	}
	return 0, 0
}

// Send sends messages to one address, until all are sent or the context ends, which is no error.
func Send(ctx context.Context, o SendOptions) (t Tally, err error) {
	c, err := o.dial(ctx)
	if err != nil {
		return t, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	start := time.Now()
	var buf []byte
	if o.Wait > 0 {
		buf = make([]byte, maxSize)
	}
	for n := range max(o.Count, 1) {
		if o.Rate > 0 {
			if pause(ctx, time.Until(start.Add(time.Duration(float64(n)/o.Rate*1e9)))) != nil {
				break
			}
		}
		if ctx.Err() != nil {
			break
		}
		if _, err := c.Write(o.Data); errors.Is(err, unix.ECONNREFUSED) { // of the one before
			t.Refused++
			continue
		} else if err != nil {
			if ctx.Err() != nil {
				break
			}
			return t, fmt.Errorf("send to %s: %w", o.Addr, err)
		}
		t.Messages++
		t.Bytes += int64(len(o.Data))
		t.Took = time.Since(start)
		if o.Wait > 0 {
			if err := o.answer(ctx, c, buf, &t); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}

// answer waits for one answer; that none comes is counted and no error.
func (o SendOptions) answer(ctx context.Context, c net.Conn, buf []byte, t *Tally) error {
	if ctx.Err() != nil {
		return nil
	}
	if err := c.SetReadDeadline(time.Now().Add(o.Wait)); err != nil {
		return err
	}
	n, err := c.Read(buf)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, unix.ECONNREFUSED):
		t.Refused++
		return nil
	case err != nil:
		return fmt.Errorf("answer of %s: %w", o.Addr, err)
	}
	t.Answers++
	if o.Answer != nil {
		return o.Answer(buf[:n])
	}
	return nil
}

func (o SendOptions) dial(ctx context.Context) (net.Conn, error) {
	switch o.Protocol {
	case ProtoUDP, ProtoTCP:
		return (&net.Dialer{}).DialContext(ctx, string(o.Protocol), o.Addr)
	case ProtoMulticast:
		return (&net.Dialer{Control: o.group}).DialContext(ctx, "udp", o.Addr)
	case ProtoRaw:
		return dialFrames(o)
	}
	return nil, fmt.Errorf("send %s: %w", o.Protocol, ErrProtocol)
}

// group binds a sender to its interface.
func (o SendOptions) group(network, _ string, c syscall.RawConn) error {
	if o.Dev == "" {
		return nil
	}
	ifi, err := net.InterfaceByName(o.Dev)
	if err != nil {
		return err
	}
	return control(c, func(fd int) error {
		if network == "udp6" {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index)
		}
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)})
	})
}

func control(c syscall.RawConn, f func(fd int) error) (err error) {
	if cerr := c.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// ListenOptions say what to receive.
type ListenOptions struct {
	Protocol  Protocol
	Addr      string                            // HOST:PORT; an interface for raw
	Dev       string                            // interface to join a group on
	Count     int                               // end after so many messages; 0 goes on
	Echo      bool                              // send each message back
	EtherType uint16                            // of frames to receive; 0 is all
	Ready     func(addr string)                 // called when messages can arrive; may be nil
	Message   func(from string, p []byte) error // p is valid until it returns; may be nil
}

// Listen receives messages until Count have come or the context ends, which is no error.
func Listen(ctx context.Context, o ListenOptions) (Tally, error) {
	r := &receiver{ListenOptions: o}
	var err error
	switch o.Protocol {
	case ProtoUDP, ProtoMulticast, ProtoRaw:
		err = r.packets(ctx)
	case ProtoTCP:
		err = r.streams(ctx)
	default:
		err = fmt.Errorf("listen %s: %w", o.Protocol, ErrProtocol)
	}
	if ctx.Err() != nil {
		err = nil
	}
	return r.t, err
}

// receiver counts what comes.
type receiver struct {
	ListenOptions
	t     Tally
	first time.Time
}

// took counts a message and reports whether it was the last.
func (r *receiver) took(from net.Addr, p []byte) (last bool, err error) {
	now := time.Now()
	if r.t.Messages == 0 {
		r.first = now
	}
	r.t.Messages++
	r.t.Bytes += int64(len(p))
	r.t.Took = now.Sub(r.first)
	if r.Message != nil {
		err = r.Message(from.String(), p)
	}
	return r.Count > 0 && r.t.Messages >= r.Count, err
}

func (r *receiver) ready(a net.Addr) {
	if r.Ready != nil {
		r.Ready(a.String())
	}
}

func (r *receiver) packets(ctx context.Context) error {
	c, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	r.ready(c.LocalAddr())
	buf := make([]byte, maxSize)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		last, err := r.took(from, buf[:n])
		if err == nil && r.Echo {
			_, err = c.WriteTo(buf[:n], from)
		}
		if err != nil || last {
			return err
		}
	}
}

func (r *receiver) open(ctx context.Context) (net.PacketConn, error) {
	switch r.Protocol {
	case ProtoUDP:
		return (&net.ListenConfig{}).ListenPacket(ctx, "udp", r.Addr)
	case ProtoRaw:
		return listenFrames(r.Addr, r.EtherType)
	}
	group, err := net.ResolveUDPAddr("udp", r.Addr)
	if err != nil {
		return nil, err
	}
	var ifi *net.Interface
	if r.Dev != "" {
		if ifi, err = net.InterfaceByName(r.Dev); err != nil {
			return nil, err
		}
	}
	return net.ListenMulticastUDP("udp", ifi, group)
}

// streams takes one connection after another.
func (r *receiver) streams(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.Addr)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	r.ready(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		last, err := r.stream(ctx, c)
		if err != nil || last {
			return err
		}
	}
}

func (r *receiver) stream(ctx context.Context, c net.Conn) (last bool, err error) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	buf := make([]byte, tcpChunk)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			last, err := r.took(c.RemoteAddr(), buf[:n])
			if err == nil && r.Echo {
				_, err = c.Write(buf[:n])
			}
			if err != nil || last {
				return last, err
			}
		}
		if err != nil {
			return false, nil // the peer's end, or its reset: the next may come
		}
	}
}

// frames is a packet socket (packet(7)) bound to an interface.
type frames struct {
	f    *os.File
	ifi  *net.Interface
	conn syscall.RawConn
	head [14]byte
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func openFrames(dev string, proto uint16) (*frames, error) {
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, fmt.Errorf("open frames of %s: %w", dev, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open frames of %s: %w", dev, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: ifi.Index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind to %s: %w", dev, err)
	}
	f := &frames{f: os.NewFile(uintptr(fd), dev), ifi: ifi}
	f.conn, err = f.f.SyscallConn()
	return f, err
}

func listenFrames(dev string, proto uint16) (net.PacketConn, error) {
	if proto == 0 {
		proto = unix.ETH_P_ALL
	}
	return openFrames(dev, proto)
}

func dialFrames(o SendOptions) (net.Conn, error) {
	if o.EtherType == 0 {
		o.EtherType = EtherType
	}
	dst := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if o.Dst != "" {
		var err error
		if dst, err = net.ParseMAC(o.Dst); err != nil || len(dst) != 6 {
			return nil, fmt.Errorf("send frames to %q: not a MAC address", o.Dst)
		}
	}
	f, err := openFrames(o.Addr, o.EtherType)
	if err != nil {
		return nil, err
	}
	copy(f.head[:6], dst)
	copy(f.head[6:12], f.ifi.HardwareAddr)
	binary.BigEndian.PutUint16(f.head[12:], o.EtherType)
	return f, nil
}

// frameAddr is where a frame came from.
type frameAddr net.HardwareAddr

func (frameAddr) Network() string  { return "ether" }
func (a frameAddr) String() string { return net.HardwareAddr(a).String() }

// Read gives the payload of the next frame that was not sent from here.
func (f *frames) Read(p []byte) (int, error) { n, _, err := f.ReadFrom(p); return n, err }

// ReadFrom gives the payload of the next frame that was not sent from here, and its sender.
func (f *frames) ReadFrom(p []byte) (int, net.Addr, error) {
	buf := make([]byte, 14+len(p))
	for {
		var n int
		var from unix.Sockaddr
		var err error
		if rerr := f.conn.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			return err != unix.EAGAIN
		}); rerr != nil {
			return 0, nil, rerr
		}
		if err != nil {
			return 0, nil, err
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); n < 14 || (ok && ll.Pkttype == unix.PACKET_OUTGOING) {
			continue
		}
		copy(f.head[12:], buf[12:14]) // an echo has the type of what it answers
		return copy(p, buf[14:n]), frameAddr(append([]byte(nil), buf[6:12]...)), nil
	}
}

// Write sends a payload behind the header made by dialFrames.
func (f *frames) Write(p []byte) (int, error) {
	n, err := f.f.Write(append(f.head[:14:14], p...))
	return max(n-14, 0), err
}

// WriteTo sends a payload to one address.
func (f *frames) WriteTo(p []byte, to net.Addr) (int, error) {
	copy(f.head[:6], to.(frameAddr))
	copy(f.head[6:12], f.ifi.HardwareAddr)
	return f.Write(p)
}

func (f *frames) Close() error                       { return f.f.Close() }
func (f *frames) LocalAddr() net.Addr                { return frameAddr(f.ifi.HardwareAddr) }
func (f *frames) RemoteAddr() net.Addr               { return frameAddr(f.head[:6]) }
func (f *frames) SetDeadline(t time.Time) error      { return f.f.SetDeadline(t) }
func (f *frames) SetReadDeadline(t time.Time) error  { return f.f.SetReadDeadline(t) }
func (f *frames) SetWriteDeadline(t time.Time) error { return f.f.SetWriteDeadline(t) }
