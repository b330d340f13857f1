package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology/spec"
)

// LeaseKind is the kind of a lab's lease; [Clean] is its cleaner.
const LeaseKind = "lab"

// Labs are the named networks of one person. Those of others may have the same names: nothing of theirs is met.
type Labs struct {
	Dir    lease.Dir
	Person string // user id
}

// Lab is a network that stays until it is taken down.
type Lab struct {
	Name  string
	Since time.Time
	Whole bool   // false while it is being made or taken down
	Text  string // what it was made from
	Hosts []LabHost

	record lease.Record
}

// LabHost is a host of a lab.
type LabHost struct {
	Name, Kind string
	NS         string // name in [netns.RunDir]
	Addrs      []string
}

// labData is a lab in its record.
type labData struct {
	Person string    `json:"person"`
	Text   string    `json:"text"`
	Hosts  []LabHost `json:"hosts"`
}

// Up makes a lab and leaves it to its person. If it fails, or this process dies, nothing stays: of the second the lease
// takes care. err is [lease.ErrTaken] if there is a lab of that name.
func (l Labs) Up(name, text string) error { return l.UpWhile(name, text, 0) }

// UpWhile is Up for a lab that belongs to a process: it stays as long as that runs, and is an orphan afterwards. 0 is none.
func (l Labs) UpWhile(name, text string, pid int) (err error) {
	if err := labName(name); err != nil {
		return err
	}
	t, err := spec.Parse(text)
	if err != nil {
		return err
	}
	data := labData{Person: l.Person, Text: text}
	for _, n := range t.Nodes {
		h := LabHost{Name: n.Name, Kind: n.Kind.String(), NS: fmt.Sprintf("fathom.%s.%s.%s", l.Person, name, n.Name)}
		for _, i := range n.Ifaces {
			for _, a := range i.Addrs {
				h.Addrs = append(h.Addrs, a.String())
			}
		}
		data.Hosts = append(data.Hosts, h)
	}
	own, err := l.Dir.Claim(LeaseKind, l.Person+"/"+name, data, func() error { return data.free() })
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, h := range data.Hosts {
		names[h.Name] = h.NS
	}
	net, err := build(t, func(node string) (netns.NS, error) { return named(names[node]) })
	if err != nil {
		if rerr := data.remove(); rerr != nil {
			return errors.Join(err, rerr) // the record stays, and so does the way to remove the rest
		}
		return errors.Join(err, own.Release())
	}
	if pid != 0 {
		if err := errors.Join(own.Give(pid), net.Close()); err != nil {
			return errors.Join(err, data.remove(), own.Release())
		}
		return nil
	}
	return errors.Join(own.Keep(), net.Close())
}

// labName accepts what can be part of a file's name.
func labName(name string) error {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	if name == "" || len(name) > 32 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("name of a lab %q: %w: up to 32 letters, digits, - and _", name, fs.ErrInvalid)
	}
	return nil
}

func named(name string) (netns.NS, error) {
	ns, err := netns.New()
	if err != nil {
		return ns, err
	}
	if err := ns.Bind(name); err != nil {
		return ns, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// free reports a namespace that is not ours and has a name we need: a cleaner would take it for ours.
func (d labData) free() error {
	for _, h := range d.Hosts {
		if _, err := os.Lstat(filepath.Join(netns.RunDir, h.NS)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("network namespace %s: %w", h.NS, fs.ErrExist)
		}
	}
	return nil
}

func (d labData) remove() error {
	var errs []error
	for _, h := range d.Hosts {
		errs = append(errs, netns.Remove(h.NS))
	}
	return errors.Join(errs...)
}

// List gives this person's labs, the oldest first.
func (l Labs) List() ([]Lab, error) {
	all, err := l.Dir.List()
	var labs []Lab
	for _, r := range all {
		var d labData
		if r.Kind != LeaseKind || json.Unmarshal(r.Data, &d) != nil || d.Person != l.Person {
			continue
		}
		labs = append(labs, Lab{
			Name: strings.TrimPrefix(r.Name, l.Person+"/"), Since: r.Since, Whole: r.Kept || r.Given, Text: d.Text, Hosts: d.Hosts, record: r,
		})
	}
	return labs, err
}

// Find gives the lab of a name. err is fs.ErrNotExist if there is none.
func (l Labs) Find(name string) (Lab, error) {
	labs, err := l.List()
	if err != nil {
		return Lab{}, err
	}
	i := slices.IndexFunc(labs, func(x Lab) bool { return x.Name == name })
	if i < 0 {
		return Lab{}, fmt.Errorf("find lab %s: %w", name, fs.ErrNotExist)
	}
	return labs[i], nil
}

// Down removes a lab. Processes that run in it keep their namespace until they end.
func (l Labs) Down(lab Lab) error {
	if !lab.Whole {
		return fmt.Errorf("take lab %s down: process %d is at work on it", lab.Name, lab.record.Owner.PID)
	}
	own, err := l.Dir.Adopt(lab.record)
	if err != nil {
		return err
	}
	if err := (labData{Hosts: lab.Hosts}).remove(); err != nil {
		return err
	}
	return own.Release()
}

// Host gives a lab's host by name.
func (l Lab) Host(name string) (LabHost, bool) {
	i := slices.IndexFunc(l.Hosts, func(h LabHost) bool { return h.Name == name })
	if i < 0 {
		return LabHost{}, false
	}
	return l.Hosts[i], true
}

// Clean is the lease's cleaner of labs.
func Clean(r lease.Record) error {
	var d labData
	if err := json.Unmarshal(r.Data, &d); err != nil {
		return err
	}
	return d.remove()
}
