package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// judge judges the receive path.
func (f *nicFlags) judge(ctx context.Context, r *live.Reader, stdout, stderr io.Writer) (err error) {
	devs, err := f.devices(r)
	if err != nil {
		return err
	}
	var maps []*nic.Map
	for _, d := range devs {
		if d.Up {
			maps = append(maps, nic.NewMap(d))
		}
	}
	dma, missing := openDMA()
	defer func() { err = errors.Join(err, dma.close()) }()
	f.say(stderr, "watching")
	ctx, cancel := f.window(ctx)
	defer cancel()
	began := time.Now()
	before := r.Receive()
	<-ctx.Done()
	after := r.Receive()
	h := &nic.Health{Over: time.Since(began)}
	mapped, err := dma.checks(after, maps)
	if err != nil {
		return err
	}
	h.Checks, h.Missing = append(mapped, nic.Judge(before, after, h.Over, maps)...), append(after.Missing, missing...)
	out := bufio.NewWriter(stdout)
	if f.json {
		err = h.WriteJSON(out)
	} else {
		err = h.WriteText(out, f.verbose, term.Color(f.color, stdout, os.Getenv))
	}
	if err = errors.Join(err, out.Flush()); err == nil && h.Worst() == nic.Red {
		return exitError{exitNegative}
	}
	return err
}

// openedDMA are programs that count mappings; the zero value is none.
type openedDMA struct {
	dma *nic.DMA
	end func()
}

// openDMA has mappings for DMA counted, where the kernel and the person's rights allow it; what is missing is said.
func openDMA() (openedDMA, []netnic.Missing) {
	w, _, cpus, end, err := nicWorld()
	if err == nil {
		var d *nic.DMA
		if d, err = nic.OpenDMA(w, cpus); err == nil {
			return openedDMA{d, end}, d.Missing()
		}
		end()
	}
	return openedDMA{}, []netnic.Missing{{What: "mappings for DMA", Why: err.Error()}}
}

// checks judges what was mapped.
func (o openedDMA) checks(after *netnic.Sample, maps []*nic.Map) ([]nic.Check, error) {
	var uses []nic.DMAUse
	if o.dma != nil {
		var err error
		if uses, err = o.dma.Read(); err != nil {
			return nil, err
		}
	}
	return nic.JudgeDMA(uses, after, maps), nil
}

func (o openedDMA) close() error {
	if o.dma == nil {
		return nil
	}
	defer o.end()
	return o.dma.Close()
}
