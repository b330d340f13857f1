package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/remote"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/view"
)

// onHosts runs the program on other hosts. The text goes there; what else is a file of this machine cannot be meant.
func (f *traceFlags) onHosts(c *cobra.Command, src *syntax.Source, params []string) (err error) {
	if err := refuseHere(c, "the program runs there", "on", "part", "guest", "list", "info", "debug", "fix", "fmt", "dry-run", "include", "include-dir",
		"debuginfo", "traceable-functions", "mode", "test", "bench"); err != nil {
		return err
	}
	w := io.Writer(os.Stdout)
	if f.output != "" {
		file, err := os.Create(f.output)
		if err != nil {
			return fmt.Errorf("open output: %w", err)
		}
		defer file.Close()
		w = file
	}
	t := &hostTrace{json: f.format == "json", flush: f.buffering != "full", w: bufio.NewWriterSize(w, 64<<10)}
	args := append([]string{"trace"}, farArgs(c.Flags(), "output", "format", "json", "buffering", "program")...)
	args = append(args, "--json", "--program="+src.Text, "--")
	r := &hostRun{verb: c.CommandPath(), root: true, quiet: f.quiet, ask: remote.Ask{Start: remote.Start{Args: append(args, params...)}}}
	r.ask.Line = func(l remote.Line) error { return t.line(r.hosts[l.Host].Name, l) }
	results, err := r.run(c.Context(), &f.hosts)
	if err != nil {
		return err
	}
	if err := t.pool.Write(t.w, t.json); err != nil {
		return err
	}
	if err := t.w.Flush(); err != nil {
		return err
	}
	return ended(results)
}

// hostTrace prints what a program says on several hosts: each record with its host, and the maps of the end as one.
type hostTrace struct {
	json  bool
	flush bool
	w     *bufio.Writer
	pool  view.Pool
}

func (t *hostTrace) line(host string, l remote.Line) error {
	var rec struct {
		Type  string          `json:"type"`
		Data  json.RawMessage `json:"data"`
		Msg   string          `json:"msg"`
		Count uint64          `json:"count"`
	}
	if err := json.Unmarshal(l.Text, &rec); err != nil {
		rec.Type, rec.Data = "text", nil // it is passed on as it is
	}
	if rec.Type == view.PortableType {
		var m view.Portable
		if err := json.Unmarshal(l.Text, &m); err != nil {
			return fmt.Errorf("host %s: a map: %w", host, err)
		}
		if m.Now {
			m.Host = host
			return t.now(&m, l)
		}
		t.pool.Add(host, &m)
		return nil
	}
	switch {
	case t.json:
		t.record(host, l)
	case rec.Type == "attached_probes":
		fmt.Fprintf(os.Stderr, "%s: Attached %d probes\n", host, rec.Count)
	case rec.Type == "lost_events":
		fmt.Fprintf(os.Stderr, "%s: Lost %d events\n", host, rec.Count)
	case rec.Type == "helper_error" || rec.Type == "errorf" || rec.Type == "warnf":
		fmt.Fprintf(os.Stderr, "%s: %s: %s\n", host, rec.Type, rec.Msg)
	default:
		text := string(rec.Data)
		var s string
		if json.Unmarshal(rec.Data, &s) == nil {
			text = s
		} else if rec.Data == nil {
			text = string(l.Text)
		}
		t.text(host, text)
	}
	if !t.flush {
		return nil
	}
	return t.w.Flush()
}

// now prints a map that a program printed while it ran.
func (t *hostTrace) now(m *view.Portable, l remote.Line) error {
	var b bytes.Buffer
	if err := m.Write(&b, t.json); err != nil {
		return err
	}
	if t.json {
		t.record("", remote.Line{Time: l.Time, Text: b.Bytes()})
	} else {
		t.w.Write(b.Bytes())
	}
	return t.w.Flush()
}

// text prints the lines of a record, each with its host.
func (t *hostTrace) text(host, text string) {
	for _, s := range bytes.Split(bytes.TrimSuffix([]byte(text), []byte{'\n'}), []byte{'\n'}) {
		fmt.Fprintf(t.w, "%s: %s\n", host, s)
	}
}

// farRecord is what a record of another host has before its own fields.
type farRecord struct {
	Host string    `json:"host,omitempty"` // "" if the record says that itself
	Time time.Time `json:"time"`           // when it was said, by our clock
}

// record prints a JSON record as it came, with its host and when it was said.
func (t *hostTrace) record(host string, l remote.Line) {
	rec, ok := bytes.CutPrefix(bytes.TrimSpace(l.Text), []byte("{"))
	if !ok {
		text, _ := json.Marshal(string(l.Text))
		rec = fmt.Appendf(nil, `"type": "text", "data": %s}`, text)
	}
	head, _ := json.Marshal(farRecord{host, stamp(l.Time)})
	fmt.Fprintf(t.w, "%s, %s\n", bytes.TrimSuffix(head, []byte("}")), rec)
}
