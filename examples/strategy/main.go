// Command strategy answers each tick of an exchange by an order, in one of two ways:
//
//	ip netns exec b strategy -i veth1 -exchange 10.0.0.1:9000                 # the kernel's sockets, by package net
//	ip netns exec b strategy -i veth1 -exchange 10.0.0.1:9000 -by netstack    # around the kernel
//
// What differs between them is 40 lines: the kernel joins the group in both, and the device, its address and its routes stay the
// kernel's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/examples/market"
)

func main() {
	log.SetFlags(0)
	dev := flag.String("i", "", "the `device` that ticks come by")
	group := flag.String("group", "239.255.0.1:12345", "ticks come to this `address`")
	exchange := flag.String("exchange", "", "orders go to this `address`")
	by := flag.String("by", "sockets", "sockets or netstack")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	run := map[string]func(context.Context, string, string, string) (uint64, error){"sockets": sockets, "netstack": around}[*by]
	if run == nil || *dev == "" || *exchange == "" {
		flag.Usage()
		log.Fatal("strategy: -i and -exchange are needed, and -by sockets or netstack")
	}
	n, err := run(ctx, *dev, *group, *exchange)
	fmt.Println(n, "orders")
	if err != nil {
		log.Fatal("strategy: ", err)
	}
}

// sockets has the kernel receive and send.
func sockets(ctx context.Context, dev, group, exchange string) (n uint64, err error) {
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return 0, err
	}
	at, err := net.ResolveUDPAddr("udp4", group)
	if err != nil {
		return 0, err
	}
	ticks, err := net.ListenMulticastUDP("udp4", ifi, at)
	if err != nil {
		return 0, err
	}
	defer ticks.Close()
	orders, err := net.Dial("tcp4", exchange)
	if err != nil {
		return 0, err
	}
	defer orders.Close()
	go func() {
		over(ctx, orders)
		ticks.Close()
	}()
	if err := ready(orders); err != nil {
		return 0, err
	}
	var b [2 * market.Size]byte
	for {
		size, err := ticks.Read(b[:])
		if errors.Is(err, net.ErrClosed) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		t, err := market.ReadTick(b[:size])
		if err != nil {
			continue // somebody else's
		}
		market.Decide(t).Put(b[:])
		if _, err := orders.Write(b[:market.Size]); err != nil {
			return n, err
		}
		n++
	}
}

// around takes ticks out of the device's queue before the kernel's stack sees them, and writes the order on the spot, by TCP of
// this process.
func around(ctx context.Context, dev, group, exchange string) (uint64, error) {
	s, err := netstack.Open(xsk.Device{Name: dev}, netstack.Options{Wait: xsk.SpinYield})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	orders, err := s.Dial("tcp4", exchange)
	if err != nil {
		return 0, err
	}
	defer orders.Close()
	var n atomic.Uint64
	var b [market.Size]byte
	in, err := s.HandleUDP("udp4", group, func(_ netip.AddrPort, tick []byte) netstack.Reply {
		if t, err := market.ReadTick(tick); err == nil {
			market.Decide(t).Put(b[:])
			if _, err := orders.Write(b[:]); err == nil {
				n.Add(1)
			}
		}
		return nil // what is sent is not an answer by UDP
	})
	if err != nil {
		return 0, err
	}
	if err := ready(orders); err != nil {
		return 0, errors.Join(err, in.Close())
	}
	over(ctx, orders)
	return n.Load(), in.Close()
}

func ready(orders net.Conn) error {
	var b [market.Size]byte
	market.Ready.Put(b[:])
	_, err := orders.Write(b[:])
	return err
}

// over returns when the exchange hangs up, or the context ends.
func over(ctx context.Context, orders net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = orders.SetReadDeadline(time.Unix(1, 0)) })() // fails only if it is closed
	_, _ = io.Copy(io.Discard, orders)                                                     // an exchange says nothing but its end
}
