package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/remote"
)

// farTrails has a run tell what someone needs who joins hosts. The returned function writes what is left of that.
func (f *packetFlags) farTrails() (flush func(rec *packet.Recording) error) {
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	var failed error
	f.o.Trail = func(t *packet.Trail) {
		failed = errors.Join(failed, jsonl.Write(w, struct {
			Type string `json:"type"`
			*packet.Trail
		}{"trail", t}))
	}
	return func(rec *packet.Recording) error {
		if failed != nil {
			return failed
		}
		return errors.Join(rec.Save(w), w.Flush())
	}
}

// onHosts follows packets on several hosts.
func (f *packetFlags) onHosts(c *cobra.Command, expr string) error {
	if err := refuseHere(c, "several hosts are watched", "output", "html", "chrome", "write", "dry-run", "count", "pid", "comm"); err != nil {
		return err
	}
	for _, w := range strings.Fields(expr) {
		if w == "pid" || w == "comm" || w == "cgroup" {
			return usageError{c.CommandPath(), fmt.Errorf("--host: a packet has its sender on one host alone: no %s in the filter", w)}
		}
	}
	if err := f.check(c, expr); err != nil {
		return err
	}
	seen, results, err := f.ask(c, "packet", expr)
	if err != nil {
		return err
	}
	cut := ended(results)
	var untold []string
	seen = slices.DeleteFunc(seen, func(s *packet.Seen) bool {
		if s.Rec == nil {
			untold = append(untold, s.Host)
		}
		return s.Rec == nil
	})
	if len(seen) == 0 {
		return cmp.Or(cut, errors.New("no host told what it saw"))
	}
	j := packet.Join(seen)
	j.Untold = untold
	return cmp.Or(cut, f.tellHosts(j))
}

// ask has a verb run on the hosts and gives what each saw.
func (f *packetFlags) ask(c *cobra.Command, verb, expr string) (seen []*packet.Seen, results []remote.Result, err error) {
	args := append(strings.Fields(verb), farArgs(c.Flags(), "json", "color", "expect", "strict", "verbose", "latency")...)
	args = append(args, "--json", "--", expr)
	r := &hostRun{verb: c.CommandPath(), root: true, quiet: f.quiet, ask: remote.Ask{Start: remote.Start{Args: args}}}
	hosts := func() {
		for len(seen) < len(r.hosts) {
			seen = append(seen, &packet.Seen{Host: r.hosts[len(seen)].Name})
		}
	}
	r.ask.Line = func(l remote.Line) error {
		hosts()
		return f.hostLine(r, seen[l.Host], l)
	}
	if results, err = r.run(c.Context(), &f.hosts); err != nil {
		return nil, nil, err
	}
	hosts()
	for i, x := range results {
		seen[i].Offset, seen[i].Error = x.Clock.Offset, x.Clock.Error+x.Moved
	}
	return seen, results, nil
}

// mostTrails bounds how many packets of a host are joined.
const mostTrails = 4 << 20

// hostLine takes a line of a host.
func (f *packetFlags) hostLine(r *hostRun, s *packet.Seen, l remote.Line) error {
	var rec struct {
		Type    string   `json:"type"`
		Level   string   `json:"level"`
		Missing []string `json:"missing"`
	}
	if bytes.HasPrefix(l.Text, []byte(`{"format":`)) { // what packet -o saves, all that was seen
		var err error
		s.Rec, err = packet.Load(bytes.NewReader(l.Text))
		return badLine(s.Host, err)
	}
	if bytes.HasPrefix(l.Text, []byte(`{"type":"trail"`)) {
		if len(s.Trails) >= mostTrails {
			return fmt.Errorf("host %s saw more than %d packets: a narrower filter, or a shorter time", s.Host, mostTrails)
		}
		s.Trails = append(s.Trails, packet.Trail{})
		return badLine(s.Host, json.Unmarshal(l.Text, &s.Trails[len(s.Trails)-1]))
	}
	if err := json.Unmarshal(l.Text, &rec); err != nil {
		return badLine(s.Host, err)
	}
	switch rec.Type {
	case "lost":
		var v packet.Verdict
		if err := json.Unmarshal(l.Text, &v); err != nil {
			return badLine(s.Host, err)
		}
		if !f.json {
			packet.HostLine(os.Stdout, s.Host, &v, f.style())
		}
	case "ready", "level":
		if f.json {
			return jsonl.Write(os.Stdout, map[string]any{"type": rec.Type, "host": s.Host, "level": rec.Level, "missing": rec.Missing})
		}
		if !f.quiet && rec.Type == "ready" {
			r.say(s.Host, "following packets by "+rec.Level)
		} else if !f.quiet {
			r.say(s.Host, "from now on by "+rec.Level)
		}
	}
	return nil
}

func badLine(host string, err error) error {
	if err != nil {
		return fmt.Errorf("host %s: what it said: %w", host, err)
	}
	return nil
}

// tellHosts writes the answer.
func (f *packetFlags) tellHosts(j *packet.Joined) (err error) {
	vs := j.Explain()
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	if f.json {
		err = j.JSON(w, vs, f.verbose)
	} else {
		err = j.Text(w, vs, f.style())
	}
	if err := errors.Join(err, w.Flush()); err != nil {
		return err
	}
	var lost uint64
	var plain []*packet.Verdict
	for _, s := range j.Hosts {
		lost += s.Rec.LostRing + s.Rec.Missed
	}
	for _, v := range vs {
		if v.Class != packet.ClassLeft {
			plain = append(plain, v.Verdict)
		}
	}
	return f.result(&packet.Recording{LostRing: lost}, plain)
}
