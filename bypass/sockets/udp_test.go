package sockets_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/oracle"
)

// farUDP is a socket of UDP of the other host's kernel.
type farUDP struct {
	t *testing.T
	*net.UDPConn
}

func (w *site) farUDP(t *testing.T) farUDP {
	t.Helper()
	w.t = t
	var c *net.UDPConn
	w.far(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(theirs+":0")))
		return err
	})
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	d, _ := w.ctx.Deadline()
	c.SetDeadline(d)
	return farUDP{t, c}
}

func (f farUDP) send(to, text string) {
	f.t.Helper()
	if _, err := f.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		f.t.Fatal(err)
	}
}

// want waits for a datagram, and says who it is from.
func (f farUDP) want(text string) string {
	f.t.Helper()
	b := make([]byte, 1<<16)
	n, from, err := f.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != text {
		f.t.Fatalf("%d bytes %.40q, want %d, %.40q: %v", n, b[:n], len(text), text, err)
	}
	return from.String()
}

// TestDatagrams: programs of others, as they are, exchange datagrams with the other host's kernel past their own.
func TestDatagrams(t *testing.T) {
	if ktest.InGuest() {
		t.Skip("a guest has no programs")
	}
	for _, b := range []netstack.Backend{netstack.XDP, netstack.Packet} {
		t.Run(b.String(), func(t *testing.T) { overDatagrams(t, b) })
	}
}

// answers sends back what comes, with its size and where it was sent to, as recvmsg tells by IP_PKTINFO; it waits by epoll.
const answers = `import select, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
s.bind(("0.0.0.0", 8080))
s.setblocking(False)
e = select.epoll()
e.register(s, select.EPOLLIN | select.EPOLLET)
print("bound to", s.getsockname(), flush=True)
while True:
    e.poll()
    while True:
        try: b, anc, flags, who = s.recvmsg(65536, 512)
        except BlockingIOError: break
        to = next(socket.inet_ntoa(d[8:12]) for l, t, d in anc if l == socket.IPPROTO_IP and t == 8)
        if b == b"end": raise SystemExit
        s.sendto(str(len(b)).encode() + b" " + to.encode() + b" " + b, who)
`

func overDatagrams(t *testing.T, b netstack.Backend) {
	python, nc := oracle.Path(t, "python3"), oracle.Path(t, "nc")
	w := newSite(t, b)

	t.Run("server", func(t *testing.T) {
		p := w.program(t, nil, python, "-c", answers)
		p.says("bound to ('0.0.0.0', 8080)")
		f := w.farUDP(t)
		sizes := []int{0, 1, 1000, 1472}
		if b == netstack.XDP {
			sizes = append(sizes, 3000, 30000) // fragments come through the kernel, which AF_PACKET's guard keeps from the program
		}
		for _, size := range sizes {
			text := strings.Repeat("x", size)
			f.send(ours+":8080", text)
			if from := f.want(fmt.Sprint(size, " ", ours, " ", text)); from != ours+":8080" {
				t.Errorf("answered from %s", from)
			}
		}
		const many = 200
		for i := range many { // boundaries are kept when they come at once
			f.send(ours+":8080", strings.Repeat("y", i))
		}
		for i := range many {
			f.want(fmt.Sprint(i, " ", ours, " ", strings.Repeat("y", i)))
		}
		if err := w.p.A.NS.Do(func() error { // by lo
			c, err := net.Dial("udp", "127.0.0.1:8080")
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			if _, err := c.Write([]byte("here")); err != nil {
				return err
			}
			got := make([]byte, 100)
			n, err := c.Read(got)
			if string(got[:n]) != "4 127.0.0.1 here" {
				t.Errorf("by lo: %q, %v", got[:n], err)
			}
			_, err = c.Write([]byte("end"))
			return err
		}); err != nil {
			t.Error(err)
		}
		res := <-p.ended
		whole := uint64(many + 4)
		if res.DatagramsIn != whole || res.DatagramsOut != uint64(many+len(sizes)) || res.DatagramsElsewhere < 3 || len(res.Kernel) > 0 || res.Code != 0 {
			t.Errorf("%+v", res)
		}
	})

	t.Run("client", func(t *testing.T) {
		f := w.farUDP(t)
		to := f.LocalAddr().(*net.UDPAddr).Port
		p := w.program(t, nil, python, "-c", fmt.Sprintf(`import socket, threading
to = ("%s", %d)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.sendto(b"asks", to)
print("told", *s.recvfrom(100), flush=True)
s.sendmsg([b"by ", b"parts"], [], 0, to)
print("told", *s.recvfrom(100), flush=True)
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
c.settimeout(60)
c.connect(to)
print("from", c.getsockname()[0], "to", c.getpeername(), flush=True)
c.send(b"connected")
print("told", c.recv(100), flush=True)
n = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n.settimeout(60)
n.connect(("%[1]s", 9))
n.send(b"to nobody")
try: n.recv(1)
except ConnectionRefusedError: print("refused", flush=True)
l = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
l.bind(("127.0.0.1", 0))
l.sendto(b"to oneself", l.getsockname())
print("alone", *l.recvfrom(100), flush=True)
`, theirs, to))
		from := f.want("asks")
		f.send(from, "one")
		p.says(fmt.Sprintf("told b'one' ('%s', %d)", theirs, to))
		if again := f.want("by parts"); again != from {
			t.Errorf("from %s, then %s", from, again)
		}
		f.send(from, "two")
		p.says(fmt.Sprintf("told b'two' ('%s', %d)", theirs, to))
		p.says(fmt.Sprintf("from %s to ('%s', %d)", ours, theirs, to))
		from = f.want("connected")
		f.send(from, "three")
		p.says("told b'three'")
		p.says("refused")
		p.says("alone b'to oneself' ('127.0.0.1'")
		if res := <-p.ended; res.DatagramsIn != 3 || res.DatagramsOut != 4 || len(res.Kernel) > 0 || res.Code != 0 {
			t.Errorf("%+v", res)
		}
	})

	t.Run("nc", func(t *testing.T) {
		f := w.farUDP(t)
		p := w.program(t, bytes.NewReader([]byte("from nc")), nc, "-n", "-u", "-l", "-v", port)
		p.says("Bound on")
		f.send(ours+":"+port, "to nc\n")
		p.says("to nc")
		if from := f.want("from nc"); from != ours+":"+port {
			t.Errorf("from %s", from)
		}
		p.cancel()
		if res := <-p.ended; res.DatagramsIn != 1 || res.DatagramsOut != 1 || len(res.Kernel) > 0 {
			t.Errorf("%+v", res)
		}
		to := f.LocalAddr().(*net.UDPAddr).Port
		p = w.program(t, bytes.NewReader([]byte("and gone")), nc, "-n", "-u", "-q", "0", theirs, fmt.Sprint(to))
		f.want("and gone") // which ends at once
		if res := <-p.ended; res.DatagramsOut != 1 || res.Code != 0 {
			t.Errorf("%+v", res)
		}
	})

	t.Run("again", func(t *testing.T) { // the port is free when the program has closed the socket
		f := w.farUDP(t)
		p := w.program(t, nil, python, "-c", `import socket
for i in range(3):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", 8080))
    print("bound", i, flush=True)
    b, who = s.recvfrom(100)
    s.sendto(b, who)
    s.close()
`)
		for i := range 3 {
			p.says(fmt.Sprint("bound ", i))
			text := fmt.Sprint("turn ", i)
			f.send(ours+":8080", text)
			f.want(text)
		}
		if res := <-p.ended; res.DatagramsIn != 3 || res.DatagramsOut != 3 || len(res.Kernel) > 0 || res.Code != 0 {
			t.Errorf("%+v", res)
		}
	})
}
