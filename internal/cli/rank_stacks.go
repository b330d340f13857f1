package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fathom-trace/fathom/answers/rank"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/view/flame"
)

// stackFlags are the files that the stacks of a ranking go to, and what they are compared with.
var stackFlags = []string{"folded", "flame", "diff"}

// stacks says if the tables are wanted as stacks, too.
func (f *rankFlags) stacks() bool { return f.folded != "" || f.flame != "" || f.diff != "" }

// before reads the stacks of an earlier run; nil where none are asked for. It is read before anything is counted.
func (f *rankFlags) before() (*flame.Graph, error) {
	if f.diff == "" {
		return nil, nil
	}
	file, err := os.Open(f.diff)
	if err != nil {
		return nil, diag.NoInput("read stacks", err)
	}
	defer file.Close()
	g, err := flame.ParseFolded(file)
	if err != nil {
		return nil, diag.BadInput("read stacks "+f.diff, err)
	}
	return g, nil
}

// fold writes the stacks of all tables, weighed by hits or the first sum, and shows what changed.
func (r *ranking) fold(ts []*rank.Table, w io.Writer) error {
	sum := ""
	if len(r.f.sum) > 0 {
		sum = r.f.sum[0]
	}
	var lines bytes.Buffer
	for _, t := range ts {
		if err := t.Folded(&lines, sum); err != nil {
			return err
		}
	}
	if r.f.folded != "" {
		if err := os.WriteFile(r.f.folded, lines.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write stacks: %w", err)
		}
	}
	g, err := flame.ParseFolded(&lines)
	if err != nil {
		return err
	}
	g.Title, g.Unit = strings.Join(r.f.events, " "), "hits"
	if sum != "" {
		g.Unit = sum
	}
	if r.f.diff != "" {
		if err := r.changes(w, g); err != nil {
			return err
		}
		g.Compare(r.before)
	}
	if r.f.flame == "" {
		return nil
	}
	file, err := os.Create(r.f.flame)
	if err != nil {
		return fmt.Errorf("write flame graph: %w", err)
	}
	return errors.Join(g.SVG(file), file.Close())
}

// changes lists the stacks whose share of the whole is another than before.
func (r *ranking) changes(w io.Writer, now *flame.Graph) error {
	list := flame.Changes(r.before, now)
	if r.f.top > 0 {
		list = list[:min(len(list), r.f.top)]
	}
	if _, err := fmt.Fprintf(w, "\n%9s %12s %12s  STACK, SINCE %s\n", "SHARE", "WAS", "NOW", r.f.diff); err != nil {
		return err
	}
	for _, c := range list {
		if _, err := fmt.Fprintf(w, "%+8.2f%% %12d %12d  %s\n", 100*c.Share, c.Was, c.Now, strings.Join(c.Stack, ";")); err != nil {
			return err
		}
	}
	return nil
}
