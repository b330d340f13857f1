package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/kernel/live"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
	"github.com/fathom-trace/fathom/probe"
)

// sockets shows what sockets the kernel has for itself, and before, for as long as --for says, who makes them.
func (f *nicFlags) sockets(ctx context.Context, r *netlive.Reader, stdout, stderr io.Writer) error {
	w, l, cpus, end, err := nicWorld()
	if err != nil {
		return err
	}
	defer end()
	o := nic.SocketOptions{CPUs: cpus}
	socketPlaces(&o, l)
	if f.netns != "" {
		o.NetNS = uint32(r.NS().Inode)
	}
	out := bufio.NewWriter(stdout)
	var missing []netnic.Missing
	var lost uint64
	if f.watches {
		if missing, lost, err = f.makers(ctx, w, o, out, stderr); err != nil {
			return err
		}
	}
	var socks []nic.KernelSocket
	err = r.Do(func() error {
		found, unseen, err := nic.ListSockets(ctx, w, o)
		socks, missing = found, append(missing, unseen...)
		return err
	})
	if err != nil {
		return err
	}
	more, unseen := r.Orphans()
	socks = append(socks, nic.Orphans(more, r.NS().Inode)...)
	for _, m := range unseen {
		missing = append(missing, netnic.Missing{What: m.What, Why: m.Err})
	}
	if f.json {
		err = nic.WriteSocketsJSON(out, socks, missing, lost)
	} else {
		err = nic.WriteSockets(out, socks, missing)
	}
	if lost > 0 {
		fmt.Fprintf(stderr, "fathom: %d events of sockets were lost\n", lost)
	}
	return errors.Join(err, out.Flush())
}

// makers tells who makes sockets in the kernel.
func (f *nicFlags) makers(ctx context.Context, w *probe.World, o nic.SocketOptions, out *bufio.Writer, stderr io.Writer) (missing []netnic.Missing, lost uint64, err error) {
	s, err := nic.OpenSockets(w, o)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	f.say(stderr, "watching")
	ctx, cancel := f.window(ctx)
	defer cancel()
	lost, err = s.Run(ctx, func(e nic.SocketEvent) error {
		if f.json {
			return errors.Join(e.WriteJSON(out), out.Flush())
		}
		return errors.Join(e.WriteText(out, f.verbose), out.Flush())
	})
	return s.Missing(), lost, err
}

// socketPlaces has places in the running kernel's code named; where it hides addresses, by numbers. What it names is read again when
// that has become more.
func socketPlaces(o *nic.SocketOptions, l *live.Live) {
	syms, err := l.Kallsyms()
	stale := false
	o.Renew = func() { stale = true }
	o.Name = func(addr uint64) nic.Place {
		if stale {
			stale = false
			if now, oerr := live.Open(live.Options{}); oerr == nil {
				syms, err = now.Kallsyms()
				now.Close()
			}
		}
		if err == nil {
			if name, module, _, ok := syms.ByAddr(addr); ok {
				return nic.Place{Name: name, Module: module}
			}
		}
		return nic.Place{Name: fmt.Sprintf("0x%x", addr)}
	}
}
