package cli

import (
	"bufio"
	"errors"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/jsonl"
)

// farLosses has a run tell the first loss of each kind as it happens, to someone who joins hosts. The returned function writes all
// that was seen.
func (f *packetFlags) farLosses() (told func(rec *packet.Recording) error) {
	var failed error
	f.o.Lost = func(v *packet.Verdict) {
		if v == nil {
			return
		}
		if err := jsonl.Write(os.Stdout, struct {
			Type string `json:"type"`
			*packet.Verdict
		}{"lost", v}); err != nil {
			failed = err
		}
	}
	return func(rec *packet.Recording) error {
		if failed != nil {
			return failed
		}
		w := bufio.NewWriterSize(os.Stdout, 64<<10)
		return errors.Join(rec.Save(w), w.Flush())
	}
}

// dropsOnHosts watches what several hosts lose. A host that is cut off meanwhile is missing in the table, which says so.
func (f *packetFlags) dropsOnHosts(c *cobra.Command, expr string) error {
	if err := refuseHere(c, "several hosts are watched", "output", "html", "chrome", "write", "dry-run", "count"); err != nil {
		return err
	}
	if err := f.check(c, expr); err != nil {
		return err
	}
	seen, results, err := f.ask(c, "packet drops", expr)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(seen, func(s *packet.Seen) bool { return s.Rec != nil }) {
		if err := ended(results); err != nil {
			return err
		}
		return errors.New("no host told what it lost")
	}
	l := &packet.Losses{Hosts: seen, BootToReal: bootToReal()}
	vs := l.Explain()
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	if f.json {
		err = l.JSON(w, vs, f.verbose)
	} else {
		err = l.Text(w, vs, f.style())
	}
	if err := errors.Join(err, w.Flush(), ended(results)); err != nil {
		return err
	}
	sum := &packet.Recording{}
	var plain []*packet.Verdict
	for _, s := range seen {
		if s.Rec != nil {
			sum.LostRing, sum.Missed = sum.LostRing+s.Rec.LostRing, sum.Missed+s.Rec.Missed
		}
	}
	for _, v := range vs {
		plain = append(plain, v.Verdict)
	}
	return f.result(sum, plain)
}
