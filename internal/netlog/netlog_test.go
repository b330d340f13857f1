package netlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestReceive sends lines from two sockets of one address and stops: what came is handed on, in one piece for the address.
func TestReceive(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("udp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, s := range []string{"4,10,1,-;one\n", "4,11,1,-,ncfrag=0/6;thr", "4,11,1,-,ncfrag=3/6;ee\n", "4,14,1,-;four\n"} {
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(i, err)
		}
	}
	var got []Heard
	for within := 300 * time.Millisecond; len(got) == 0 && within < time.Minute; within *= 2 { // the end may come before the first is read
		ctx, cancel := context.WithTimeout(t.Context(), within)
		if err := l.Receive(ctx, func(h Heard) error { got = append(got, h); return nil }); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if d := cmp.Diff([]Heard{{"127.0.0.1", []byte("one\nthree\nfour\n"), 2}}, got); d != "" {
		t.Error(d)
	}
	stop := errors.New("stop")
	if _, err := c.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if err := l.Receive(t.Context(), func(Heard) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestSend(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	unix, err := net.ListenPacket("unixgram", name)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for addr, c := range map[string]net.PacketConn{name: unix, udp.LocalAddr().String(): udp} {
		if err := Send(addr, [][]byte{[]byte("a"), []byte("b")}); err != nil {
			t.Error(err)
		}
		got := ""
		for range 2 {
			b := make([]byte, 10)
			c.SetReadDeadline(time.Now().Add(time.Minute))
			n, _, err := c.ReadFrom(b)
			got += fmt.Sprint(string(b[:n]), err, " ")
		}
		if got != "a<nil> b<nil> " {
			t.Error(addr, got)
		}
	}
	if Send(filepath.Join(t.TempDir(), "nobody"), [][]byte{[]byte("a")}) == nil {
		t.Error("sent to nobody")
	}
}
