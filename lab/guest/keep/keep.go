// Package keep runs guests that stay: each belongs to a keeper, a process of its own that started QEMU and answers on a
// socket. Who asks for something of a guest speaks to its keeper.
//
// A guest lives as long as its keeper. It ends by [Client.Down], with the process it was bound to ([Spec.While]), or when
// its kernel powers off. If the keeper dies, kill -9 included, QEMU dies with it, and its record is an orphan of package
// lease.
package keep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// LeaseKind is the kind of a guest's lease; [Clean] is its cleaner.
const LeaseKind = "guest"

// Guests are the named guests of one person.
type Guests struct {
	Dir    lease.Dir
	Person string // user id
}

// Info is a guest as its record has it.
type Info struct {
	Name   string
	Since  time.Time
	Keeper int // process
	Data
}

// Data is what the record of a guest says about it.
type Data struct {
	Person string       `json:"person"`
	Folder string       `json:"folder"` // of its sockets
	Kernel guest.Kernel `json:"kernel"`
	View   pid1.Command `json:"view"` // what its commands see
	Mem    int          `json:"mem"`  // MiB
	CPUs   int          `json:"cpus"`
	While  int          `json:"while,omitempty"`
	Disk   bool         `json:"disk,omitempty"` // commands see a disk's files, not this machine's
}

// Names of files in a guest's folder.
const (
	ctlSocket = "ctl"
	gdbSocket = "gdb"
	headFile  = "head" // registers and notes, while somebody looks
	memFile   = "mem"  // the piece of memory that was asked for last
)

// GDB is the path of the socket of the guest's gdb stub.
func (d Data) GDB() string { return filepath.Join(d.Folder, gdbSocket) }

// Memory is where QEMU's machine "pc" puts a guest's memory: all below 3 GiB, and from 4 GiB on what is more (hw/i386/pc_piix.c).
func (d Data) Memory() [][2]uint64 {
	const low, high = 3 << 30, 4 << 30
	size := uint64(d.Mem) << 20
	if size <= low {
		return [][2]uint64{{0, size}}
	}
	return [][2]uint64{{0, low}, {high, high + size - low}}
}

// CheckName accepts what can be part of a file's name.
func CheckName(name string) error {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	if name == "" || len(name) > 32 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("name of a guest %q: %w: up to 32 letters, digits, - and _", name, fs.ErrInvalid)
	}
	return nil
}

// List gives this person's guests, the oldest first. Those whose keeper has died are left out: they are orphans.
func (g Guests) List() ([]Info, error) {
	all, err := g.Dir.List()
	orphans, oerr := g.Dir.Orphans()
	var out []Info
	for _, r := range all {
		var d Data
		if r.Kind != LeaseKind || json.Unmarshal(r.Data, &d) != nil || d.Person != g.Person {
			continue
		}
		if slices.ContainsFunc(orphans, func(o lease.Record) bool { return o.Kind == r.Kind && o.Name == r.Name && o.Owner == r.Owner }) {
			continue
		}
		out = append(out, Info{Name: strings.TrimPrefix(r.Name, g.Person+"/"), Since: r.Since, Keeper: r.Owner.PID, Data: d})
	}
	return out, errors.Join(err, oerr)
}

// Find gives the guest of a name. err is fs.ErrNotExist if there is none.
func (g Guests) Find(name string) (Info, error) {
	all, err := g.List()
	i := slices.IndexFunc(all, func(x Info) bool { return x.Name == name })
	if i < 0 {
		return Info{}, errors.Join(fmt.Errorf("find guest %s: %w", name, fs.ErrNotExist), err)
	}
	return all[i], nil
}

// Clean is the lease's cleaner of guests: QEMU died with the keeper, its sockets stay.
func Clean(r lease.Record) error {
	var d Data
	if err := json.Unmarshal(r.Data, &d); err != nil {
		return err
	}
	if !strings.HasPrefix(filepath.Base(d.Folder), folderPrefix) {
		return fmt.Errorf("%s is no folder of a guest", d.Folder)
	}
	return os.RemoveAll(d.Folder)
}

const folderPrefix = "guest-"

// folder is where a guest's sockets are.
func (g Guests) folder(name string) string {
	return filepath.Join(g.Dir.Path, folderPrefix+g.Person+"-"+name)
}

// dial connects to a socket whose path may be longer than a socket's address can be.
func dial(path string) (net.Conn, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return net.Dial("unix", short)
}

// listen is dial's other side.
func listen(path string) (*net.UnixListener, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false) // by then the short name means nothing
	}
	return l, err
}

// maxPath is what fits sockaddr_un.
const maxPath = 107

// shorten gives a name of the same file through a descriptor of its folder, valid until done is called.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { unix.Close(fd) }, nil
}
