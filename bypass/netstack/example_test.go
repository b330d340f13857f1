package netstack_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"time"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// A server and a client of net/http, unchanged, whose packets go around the kernel.
func Example() {
	s, err := netstack.Open(xsk.Device{Name: "eth0"}, netstack.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	l, err := s.Listen("tcp", ":8080")
	if err != nil {
		log.Fatal(err) // also if a program of this machine has the port
	}
	go func() {
		log.Println(http.Serve(l, http.FileServer(http.Dir("."))))
	}()
	client := http.Client{Transport: &http.Transport{DialContext: s.DialContext}, Timeout: time.Minute}
	resp, err := client.Get("http://192.0.2.7/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	fmt.Println(len(page), err)
}

// The shortest way from a datagram to its answer: nothing is queued or copied, and the answer is written into the frame that is sent.
func ExampleStack_HandleUDP() {
	s, err := netstack.Open(xsk.Device{Name: "eth0", NetNS: "strategy"}, netstack.Options{Wait: xsk.SpinYield})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	in, err := s.HandleUDP("udp", ":12345", func(from netip.AddrPort, tick []byte) netstack.Reply {
		if tick[0] != 'B' {
			return nil
		}
		return func(order []byte) int { return copy(order, "S 100") }
	})
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	<-context.Background().Done()
}
