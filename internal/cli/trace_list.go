package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/dead"
	"github.com/fathom-trace/fathom/probe/recorded"
	"github.com/fathom-trace/fathom/usersym"
)

// listAll is -l.
func (f *traceFlags) listAll(c *cobra.Command, args []string) (err error) {
	out := bufio.NewWriterSize(c.OutOrStdout(), 64<<10)
	defer func() {
		if e := out.Flush(); err == nil {
			err = e
		}
	}()
	show := func(l probe.Listed) error {
		if f.format == "json" {
			return jsonl.Write(out, l)
		}
		_, err := out.WriteString(l.Text())
		return err
	}
	pattern := strings.Join(args, " ")
	if f.on.given() {
		return f.listPlace(c, pattern, show)
	}
	return f.listProbes(pattern, show)
}

// listPlace lists what programs can run over in a recording or a dead kernel, of what matches a pattern.
func (f *traceFlags) listPlace(c *cobra.Command, pattern string, show func(probe.Listed) error) error {
	var o script.Options
	done, err := f.openPlace(c, &o)
	if err != nil {
		return err
	}
	defer done()
	for _, l := range within(&o, pattern) {
		if err := show(l); err != nil {
			return err
		}
	}
	return nil
}

// within is what programs can run over in an open place and matches a pattern, or all for none.
func within(o *script.Options, pattern string) (list []probe.Listed) {
	add := func(name, about string) {
		if pattern == "" || check.Match(pattern, name) {
			list = append(list, probe.Listed{Type: "probe", Name: name, About: about})
		}
	}
	if o.Recording != nil {
		for _, name := range recorded.NewWorld(o.Recording).Events() {
			add(name, "")
		}
		return list
	}
	for _, k := range dead.Iterators() {
		add("iter:"+k[0], k[1])
	}
	return list
}

// listProbes lists those of this kernel: no root is needed for what can be read without.
func (f *traceFlags) listProbes(pattern string, show func(probe.Listed) error) error {
	l, err := live.Open(live.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	users := usersym.New(usersym.Options{DebugInfo: f.debugInfo})
	defer users.Close()
	pid, err := parsePID(f.pid)
	if err != nil {
		return err
	}
	w := probe.NewWorld(l, users, pid)
	defer w.Close()
	text := strings.Join(f.program, "\n")
	if b, err := os.ReadFile(pattern); err == nil {
		text = string(b)
	} else if strings.HasSuffix(pattern, ".bt") {
		fmt.Fprintf(os.Stderr, "WARNING: It appears that '%s' is a filename but the file does not exist. Treating '%[1]s' as a search pattern.\n", pattern)
	}
	if text == "" {
		return w.List(pattern, f.verbose, show)
	}
	file, ds := syntax.Parse(&syntax.Source{Name: "stdin", Text: text})
	if len(ds) > 0 {
		diag.Render(os.Stderr, ds, style())
		return script.ErrDiagnosed
	}
	for _, p := range file.Probes {
		if err := w.ListPoints(p.Points, f.verbose, show); err != nil {
			return err
		}
	}
	return nil
}
