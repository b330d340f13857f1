package polling

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/fathom-trace/fathom/lab/attach"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
	"github.com/fathom-trace/fathom/netstate/live"
)

// Pair is a veth pair between two namespaces of our own, with somebody at the far end who answers. All of it goes with the process.
type Pair struct {
	*topology.Pair
	Reader *live.Reader   // of the near end's namespace
	To     netip.AddrPort // who answers
	XDP    error          // why the near end has no NAPI instances

	prog   *attach.Attached
	cancel context.CancelFunc
	done   chan error
}

// veth polls only while an XDP program is on it, or GRO is: the program passes everything.
const xdpName = "fathom_pass"

// NewPair makes one. The caller closes it.
func NewPair(ctx context.Context) (p *Pair, err error) {
	p = &Pair{}
	if p.Pair, err = topology.NewPair("va", "vb"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.Reader, err = live.OpenNS(p.A.NS); err != nil {
		return nil, err
	}
	p.XDP = p.A.Do(func() (err error) {
		p.prog, err = attach.XDP(p.A.Dev, xdpName, attach.XDPPass, true)
		return err
	})
	ctx, p.cancel = context.WithCancel(ctx)
	p.done = make(chan error, 1)
	at := make(chan string, 1)
	go func() {
		p.done <- p.B.Do(func() error {
			_, err := traffic.Listen(ctx, traffic.ListenOptions{Protocol: traffic.ProtoUDP, Addr: p.B.Addr.String() + ":0", Echo: true, Ready: func(a string) { at <- a }})
			return err
		})
	}()
	select {
	case a := <-at:
		p.To, err = netip.ParseAddrPort(a)
	case err = <-p.done:
		p.done <- nil
		err = fmt.Errorf("answer on %s: %w", p.B.Dev, err)
	}
	return p, err
}

// Close ends it.
func (p *Pair) Close() error {
	var errs []error
	if p.cancel != nil {
		p.cancel()
		errs = append(errs, <-p.done)
	}
	if p.prog != nil {
		errs = append(errs, p.prog.Close())
	}
	if p.Reader != nil {
		errs = append(errs, p.Reader.Close())
	}
	return errors.Join(append(errs, p.Pair.Close())...)
}
