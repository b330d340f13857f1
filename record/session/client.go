package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/record"
)

// ErrNone says that there is no session of a name, or none at all.
var ErrNone = errors.New("no such session")

// Create starts a keeper: command is how this program becomes one, by calling [Keep] with its standard input and output. The
// session stays when this process ends.
func Create(command []string, s Spec) (Status, error) {
	if err := CheckName(s.Name); err != nil {
		return Status{}, err
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return Status{}, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = "/"                                        // the folder it was started in is not held
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for who asked, not for the keeper
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return Status{}, fmt.Errorf("start keeper: %w", err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return Status{}, fmt.Errorf("start keeper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return Status{}, fmt.Errorf("start keeper: %w", err)
	}
	if _, err := stdin.Write(append(spec, '\n')); err != nil {
		return Status{}, errors.Join(fmt.Errorf("start keeper: %w", err), cmd.Wait())
	}
	var r reply
	if err := json.NewDecoder(stdout).Decode(&r); err != nil {
		return Status{}, fmt.Errorf("start keeper: it ended early: %w", errors.Join(err, cmd.Wait()))
	}
	if r.Error != "" {
		_ = cmd.Wait() // it tells by its reply
		return Status{}, errors.New(r.Error)
	}
	return r.Status, cmd.Process.Release()
}

// Client speaks to the keeper of a session; every call has a connection of its own.
type Client struct {
	Name string
	dir  data
}

// List gives the sessions whose keepers live, the oldest first.
func List(leases lease.Dir) ([]Client, error) {
	all, err := leases.List()
	var out []Client
	for _, r := range all {
		var d data
		if r.Kind == LeaseKind && json.Unmarshal(r.Data, &d) == nil {
			out = append(out, Client{r.Name, d})
		}
	}
	return out, err
}

// Find gives the session of a name; without a name the one that was made last. None is [ErrNone].
func Find(leases lease.Dir, name string) (Client, error) {
	all, err := List(leases)
	for i := len(all) - 1; i >= 0; i-- {
		if name == "" || all[i].Name == name {
			return all[i], nil
		}
	}
	if err != nil {
		return Client{}, err
	}
	if name == "" {
		return Client{}, fmt.Errorf("%w: there is none", ErrNone)
	}
	return Client{}, fmt.Errorf("%w: %s", ErrNone, name)
}

// Dir is where the session records to.
func (c Client) Dir() string { return c.dir.Dir }

func (c Client) ask(q request) (Status, error) {
	conn, err := net.Dial("unix", c.dir.Socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return Status{}, fmt.Errorf("%w: the keeper of %s has gone; what it recorded is in %s", ErrNone, c.Name, c.dir.Dir)
	}
	if err != nil {
		return Status{}, fmt.Errorf("session %s: %w", c.Name, err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return Status{}, fmt.Errorf("session %s: %w", c.Name, err)
	}
	var r reply
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return Status{}, fmt.Errorf("session %s: its keeper has ended: %w; what it recorded is in %s", c.Name, err, filepath.Clean(c.dir.Dir))
	}
	if r.Error != "" {
		return r.Status, errors.New(r.Error)
	}
	return r.Status, nil
}

// Status tells how the session is.
func (c Client) Status() (Status, error) { return c.ask(request{Op: opStatus}) }

// Enable adds events; those of a session that records are in the segment that begins with them. A pattern with * or ? may
// match nothing: its events are recorded from the moment on that a module brings them.
func (c Client) Enable(events []record.Spec) (Status, error) {
	return c.ask(request{Op: opEnable, Events: events})
}

// Start begins to record, into a new segment.
func (c Client) Start() (Status, error) { return c.ask(request{Op: opStart}) }

// Stop ends the segment, and returns when all segments are finished. A flight recorder's rings go with what they hold.
func (c Client) Stop() (Status, error) { return c.ask(request{Op: opStop}) }

// Rotate ends the segment and begins the next one; nothing is lost between them.
func (c Client) Rotate() (Status, error) { return c.ask(request{Op: opRotate}) }

// Snapshot takes what a flight recorder's rings hold, and returns when it is in its folder.
func (c Client) Snapshot() (Status, error) { return c.ask(request{Op: opSnapshot}) }

// Destroy stops the session and ends its keeper. What was recorded stays.
func (c Client) Destroy() (Status, error) { return c.ask(request{Op: opDestroy}) }
