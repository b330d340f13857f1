// Command exchange sends ticks to a group of multicast, takes an order for each from a strategy, and says how long that took.
//
//	ip netns exec a exchange -i veth0 -listen 10.0.0.1:9000 -ticks 10000
//
// It has nothing of fathom but the histogram: what it measures is the strategy at the other end.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/examples/market"
)

// patience is how long an order is waited for.
const patience = 5 * time.Second

func main() {
	log.SetFlags(0)
	dev := flag.String("i", "", "the `device` that ticks leave by; else the one that the route to the group says")
	group := flag.String("group", "239.255.0.1:12345", "ticks go to this `address`")
	listen := flag.String("listen", ":9000", "the strategy connects to this `address`")
	ticks := flag.Int("ticks", 10000, "send `N` ticks")
	flag.Parse()
	if err := run(*dev, *group, *listen, *ticks); err != nil {
		log.Fatal("exchange: ", err)
	}
}

func run(dev, group, listen string, ticks int) error {
	feed, err := dial(dev, group)
	if err != nil {
		return err
	}
	defer feed.Close()
	l, err := net.Listen("tcp4", listen)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("waiting for a strategy at", l.Addr())
	strategy, err := l.Accept()
	if err != nil {
		return err
	}
	defer strategy.Close()

	var b [market.Size]byte
	if _, err := io.ReadFull(strategy, b[:]); err != nil {
		return fmt.Errorf("wait until the strategy is ready: %w", err)
	}
	if o, _ := market.ReadOrder(b[:]); o != market.Ready {
		return fmt.Errorf("a strategy began with %+v", o)
	}
	var took traffic.Times
	for seq := range uint64(ticks) {
		t := market.Tick{Seq: seq, Price: 10_000 + seq%97}
		t.Put(b[:])
		if err := strategy.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		start := time.Now()
		if _, err := feed.Write(b[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(strategy, b[:]); err != nil {
			return fmt.Errorf("wait for the order for tick %d: %w", seq, err)
		}
		took.Add(time.Since(start))
		if o, err := market.ReadOrder(b[:]); err != nil || o != market.Decide(t) {
			return errors.Join(fmt.Errorf("tick %+v was answered by %+v", t, o), err)
		}
	}
	fmt.Printf("%d ticks, each answered by its order; p50 %v, p99 %v, p99.9 %v\n\n", ticks, took.At(.5), took.At(.99), took.At(.999))
	return took.WriteText(os.Stdout)
}

// dial makes a socket that sends to a group, by a device if one is named, which no route has to lead to.
func dial(dev, group string) (net.Conn, error) {
	if dev == "" {
		return net.Dial("udp4", group)
	}
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			err = errors.Join(unix.BindToDevice(int(fd), dev),
				unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)}))
		})
		return errors.Join(cerr, err)
	}}
	return d.Dial("udp4", group)
}
