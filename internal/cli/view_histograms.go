package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/view/events"
)

// histograms draws heat maps of what a program printed into a file.
func (f *viewFlags) histograms(out io.Writer, name string) (err error) {
	in, err := os.Open(name)
	if err != nil {
		return viewError(name, err)
	}
	defer in.Close()
	all, err := events.ReadHistograms(in)
	if err != nil {
		return diag.BadInput("read histograms of "+name, err)
	}
	hs := slices.DeleteFunc(slices.Clone(all), func(h *events.Histogram) bool {
		return len(f.events) > 0 && !slices.ContainsFunc(f.events, func(e string) bool {
			ok, _ := path.Match(e, h.Name)
			return ok || e == h.Name || strings.HasPrefix(h.Name, e+"[")
		})
	})
	if len(hs) == 0 {
		e := &diag.Error{What: "draw histograms of " + name, Because: "no line there is of a map of hist() or lhist()", Code: diag.ExitFailure,
			Try: []string{"fathom trace -j -e 'PROBE { @ = hist(VALUE); } interval:s:1 { print(@); clear(@); }' -o " + name}}
		if len(all) > 0 {
			e.Because, e.Try = fmt.Sprintf("no histogram there is called so; there is %s", all[0].Name), nil
		}
		return e
	}
	if n := len(hs) - max(f.top, 1); n > 0 {
		hs = hs[:max(f.top, 1)]
		if !f.quiet {
			fmt.Fprintf(os.Stderr, "fathom: %d more histograms, which counted less, are left out: --top\n", n)
		}
	}
	if file := cmp.Or(f.output, f.html); file != "" {
		w, err := os.Create(file)
		if err != nil {
			return fmt.Errorf("open output: %w", err)
		}
		defer func() {
			if cerr := w.Close(); err == nil {
				err = cerr
			}
		}()
		out = w
	}
	if f.html != "" {
		return events.HistogramsPage(out, hs, filepath.Base(name))
	}
	return events.HistogramsText(out, hs, term.Width(out, os.Getenv), term.UTF8(os.Getenv))
}
