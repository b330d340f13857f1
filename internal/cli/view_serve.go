package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/loopback"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/browse"
)

// browse answers a browser until Ctrl-C. The flags choose what its first page shows; each page opens the recordings for itself.
func (f *viewFlags) browse(c *cobra.Command, args []string) error {
	first := browse.Query{View: browse.Views[0], Events: f.events, Filter: f.filter, CPUs: f.cpus, From: f.from, Until: f.until}
	o, err := openRecordings(args, 0) // what cannot be read is told at once
	if err != nil {
		return err
	}
	defer o.close()
	if _, err := f.picker(c, o); err != nil {
		return err
	}
	srv, err := loopback.Listen(f.serve)
	if err != nil {
		return &diag.Error{What: "serve at " + f.serve, Err: err, Try: []string{"fathom view " + args[0] + " --serve 127.0.0.1:0"}}
	}
	f.notes(o)
	b := &browse.Browser{Title: f.title(&opened{traces: o.traces}), Top: f.top, Wall: f.wall,
		Open:  func(q browse.Query) (*browse.Reading, error) { return readPage(c, args, q, started(args)) },
		Match: func(pattern, system, name string) bool { return record.Spec{Pattern: pattern}.Matches(system, name) },
	}
	page := srv.URL()
	if link := first.Link(); link != "?" {
		page += link
	}
	fmt.Fprintln(c.OutOrStdout(), page)
	if !f.quiet {
		fmt.Fprintln(os.Stderr, "fathom: open this page in a browser of this machine; Ctrl-C ends it")
	}
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	stop, done := interrupts()
	defer done()
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	})
	err = srv.Serve(ctx, func(ctx context.Context, path string, form url.Values) loopback.Response {
		if path != "/" {
			return loopback.Response{Status: 404, Type: "text/plain; charset=utf-8", Body: []byte("fathom: no such page\n")}
		}
		p := b.Page(ctx, form)
		r := loopback.Response{Body: p.HTML, Scripts: p.Scripts}
		if !p.OK {
			r.Status = 400
		}
		return r
	})
	cancel()
	return wrap("serve", err)
}

// started gives when the first event of recordings is, in ns of the clock of the first of them; 0 if there is none. It is asked anew
// for each page: a session loses its oldest segments.
func started(args []string) uint64 {
	o, err := openRecordings(args, 0)
	if err != nil {
		return 0
	}
	defer o.close()
	var e traceevent.Event
	if !o.stream.Next(&e) {
		return 0
	}
	return e.Time
}

// readPage opens recordings for a page.
func readPage(c *cobra.Command, args []string, q browse.Query, start uint64) (*browse.Reading, error) {
	from := uint64(0)
	if q.From > 0 {
		from = start + uint64(q.From)
	}
	o, err := openRecordings(args, from)
	if err != nil {
		return nil, err
	}
	o.start, o.begun = start, true
	said := o.said()
	f := viewFlags{events: slices.Clone(q.Events), filter: q.Condition(), cpus: q.CPUs, from: q.From, until: q.Until}
	pick, err := f.picker(c, o)
	if err != nil {
		o.close()
		return nil, err
	}
	return &browse.Reading{Stream: o.stream, Pick: pick, Source: o.source, Formats: o.formats, Start: start, Notes: said, Close: o.close}, nil
}
