package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/rank"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/remote"
)

// farTables tells tables whole to someone who adds up those of several hosts.
func farTables(w io.Writer, ts []*rank.Table) error {
	enc := jsonl.NewEncoder(w)
	for _, t := range ts {
		if err := enc.Encode(t); err != nil {
			return err
		}
	}
	return nil
}

// onHosts counts on several hosts, and shows the sums. A table that is cut, by --top or by an order, is cut here.
func (f *rankFlags) onHosts(c *cobra.Command) (err error) {
	if err := refuseHere(c, "tables of events are added up", "find", "stack-depth", "trigger", "synthetic", "allow-system-changes"); err != nil {
		return err
	}
	show := &ranking{f: f}
	if show.before, err = f.before(); err != nil {
		return err
	}
	sums := rank.NewHosts(f.by)
	args := append([]string{"rank"}, farArgs(c.Flags(), "by", "json", "strict", "folded", "flame", "diff", "top", "sort", "ascending")...)
	if f.overlap == "" {
		args = append(args, "--by="+strings.Join(sums.Asked(), ","))
	}
	args = append(append(args, f.events...), "--")
	r := &hostRun{verb: c.CommandPath(), root: true, quiet: f.quiet, ask: remote.Ask{Start: remote.Start{Args: append(args, f.cmd...)}}}
	r.ask.Line = func(l remote.Line) error {
		var t rank.Table
		if err := json.Unmarshal(l.Text, &t); err != nil {
			return badLine(r.hosts[l.Host].Name, err)
		}
		for _, row := range t.Rows {
			if len(row.Keys) != len(t.By) || len(row.Sums) != len(t.Sum) {
				return badLine(r.hosts[l.Host].Name, fmt.Errorf("a row of %d keys under %d names", len(row.Keys), len(t.By)))
			}
		}
		sums.Add(r.hosts[l.Host].Name, &t)
		return nil
	}
	results, err := r.run(c.Context(), &f.hosts)
	if err != nil {
		return err
	}
	if err := ended(results); err != nil {
		return err
	}
	for _, t := range sums.Tables() {
		if err := t.CheckOrder(f.order...); err != nil {
			return usageError{c.CommandPath(), err}
		}
	}
	return show.show(sums.Tables(), c.OutOrStdout(), os.Stderr)
}
