package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/remote"
	"github.com/fathom-trace/fathom/record"
)

// hostsFile says of a folder that it has the recordings of several hosts.
const hostsFile = "hosts.json"

// hostRecording is a host's recording, in a folder beside those of others.
type hostRecording struct {
	Host       string `json:"host"`
	Dir        string `json:"dir"` // below the folder
	ClockAhead int64  `json:"clock_ahead_ns"`
	ClockError int64  `json:"clock_error_ns"`
}

// onHosts records on several hosts and fetches what was recorded, each host's into a folder of its own, in the time of this
// machine.
func (f *recordFlags) onHosts(c *cobra.Command, command []string) error {
	if _, err := f.options(c, command); err != nil { // what makes no sense there makes none here
		return err
	}
	dir := f.dir
	if dir == "" {
		dir = "fathom-" + time.Now().Format("20060102-150405")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return recordError(fmt.Errorf("%s: %w", dir, record.ErrRecorded))
		}
		return err
	}
	args := append([]string{"record"}, farArgs(c.Flags(), "output", "json", "quiet", "strict", "ask")...)
	if f.ask != "" {
		args = append(args, "--ask="+asked(f.ask).Text)
	}
	args = append(append(args, "--json", "--"), command...)
	r := &hostRun{verb: c.CommandPath(), root: true, quiet: f.quiet, ask: remote.Ask{Start: remote.Start{Args: args, Fetch: "--output="}, Dir: dir}}
	var missed uint64
	r.ask.Line = func(l remote.Line) error {
		var acc struct {
			Type string `json:"type"`
			record.Account
		}
		host := r.hosts[l.Host]
		switch err := json.Unmarshal(l.Text, &acc); {
		case err != nil || acc.Type != "recording":
			r.say(host.Name, string(l.Text)) // of the command
			return nil
		case f.json:
			var rec map[string]json.RawMessage
			if err := json.Unmarshal(l.Text, &rec); err != nil {
				return badLine(host.Name, err)
			}
			rec["host"], _ = json.Marshal(host.Name)
			rec["dir"], _ = json.Marshal(filepath.Join(dir, host.Folder()))
			if err := jsonl.Write(c.OutOrStdout(), rec); err != nil {
				return err
			}
		case !f.quiet:
			r.say(host.Name, fmt.Sprintf("%d events recorded into %s: %s", acc.Events, filepath.Join(dir, host.Folder()), lossText(&acc.Account)))
		}
		missed += acc.Missed + acc.Left
		return nil
	}
	results, err := r.run(c.Context(), &f.hosts)
	if err != nil {
		return errors.Join(err, emptied(dir))
	}
	if err := fetchedFrom(dir, results); err != nil {
		return err
	}
	if err := ended(results); err != nil {
		return err
	}
	if f.strict && missed > 0 {
		return exitError{exitLost}
	}
	return nil
}

// emptied removes a folder that nothing came into.
func emptied(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil || len(list) > 0 {
		return nil // what is there stays
	}
	return os.Remove(dir)
}

// fetchedFrom sets the clocks of what was fetched, and writes down what it is.
func fetchedFrom(dir string, results []remote.Result) error {
	var list []hostRecording
	for _, x := range results {
		where := filepath.Join(dir, x.Host.Folder())
		if _, err := os.Stat(where); err != nil {
			continue // its run ended without one, and says so
		}
		if err := record.Shift(where, -x.Clock.Real); err != nil {
			return &diag.Error{What: "fetch the recording of " + x.Host.Name, Err: err}
		}
		list = append(list, hostRecording{x.Host.Name, x.Host.Folder(), x.Clock.Real, x.Clock.Error})
	}
	if len(list) == 0 {
		return emptied(dir)
	}
	b, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, hostsFile), append(b, '\n'), 0o644)
}

// ofHosts gives the recordings in the folders that record --host made, and other names as they are.
func ofHosts(names []string) (out []string, err error) {
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(n, hostsFile))
		if err != nil {
			out = append(out, n) // what it is will be seen
			continue
		}
		var list []hostRecording
		if err := json.Unmarshal(b, &list); err != nil {
			return nil, diag.BadInput("read "+filepath.Join(n, hostsFile), err)
		}
		for _, h := range list {
			if !filepath.IsLocal(h.Dir) {
				return nil, diag.BadInput("read "+filepath.Join(n, hostsFile), fmt.Errorf("%s is not below it", h.Dir))
			}
			out = append(out, filepath.Join(n, h.Dir))
		}
	}
	return out, nil
}
