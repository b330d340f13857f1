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
)

// judge judges the receive path.
func (f *nicFlags) judge(ctx context.Context, r *live.Reader, stdout, stderr io.Writer) error {
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
	f.say(stderr, "watching")
	ctx, cancel := f.window(ctx)
	defer cancel()
	began := time.Now()
	before := r.Receive()
	<-ctx.Done()
	after := r.Receive()
	h := &nic.Health{Over: time.Since(began)}
	h.Checks, h.Missing = nic.Judge(before, after, h.Over, maps), after.Missing
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
