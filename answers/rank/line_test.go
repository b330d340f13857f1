package rank

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// line is the loopback device of a namespace of its own, by a name that no other has: others send on theirs meanwhile.
type line struct {
	name string
	in   net.PacketConn
	out  net.Conn
}

func newLine(t *testing.T) *line {
	t.Helper()
	l := &line{name: fmt.Sprintf("lo%d", os.Getpid())}
	err := ktest.Loopback(t, l.name).Do(func() (err error) {
		if l.in, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			return err
		}
		l.out, err = net.Dial("udp4", l.in.LocalAddr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.in.Close(); l.out.Close() })
	return l
}

// datagrams sends n datagrams over the device, of sizes 100, 101, ….
func (l *line) datagrams(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.out.Write(make([]byte, 100+i)); err != nil {
			t.Fatal(err)
		}
	}
	for range n { // received, so that all events are over
		l.in.SetReadDeadline(time.Now().Add(time.Minute))
		if _, _, err := l.in.ReadFrom(make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
	}
}
