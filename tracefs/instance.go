package tracefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/lease"
)

// LeaseKind is the kind of the leases of instances; [CleanInstance] removes those whose owner is gone.
const LeaseKind = "tracefs"

// instancePrefix begins the names of our instances.
const instancePrefix = "fathom-"

// Instance is a tracing instance of our own: a ring buffer, events, filters and a tracer that nobody else uses. What is
// written here changes nothing outside, except options/funcgraph-*, sleep-time and graph-time: the kernel keeps one copy of
// these for all instances (struct tracer_flags), so they are not to be written.
type Instance struct {
	Name  string
	dir   string
	lease *lease.Lease
}

// serial tells the instances of one process apart.
var serial atomic.Uint64

// NewInstance makes an instance, switched off and empty, under a lease in leases. It belongs to the caller, who must Close
// it; should the process die, its lease lets the next one remove it.
func (f FS) NewInstance(leases lease.Dir) (*Instance, error) {
	name := fmt.Sprintf("%s%d-%d", instancePrefix, os.Getpid(), serial.Add(1))
	i := &Instance{Name: name, dir: f.path("instances", name)}
	var err error
	if i.lease, err = leases.New(LeaseKind, name, nil); err != nil {
		return nil, err
	}
	if err := os.Mkdir(i.dir, 0o700); err != nil {
		i.lease.Release()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // EINVAL: under lockdown (tracefs_create_dir)
			return nil, feature.Unsupported("tracefs instances", "mkdir "+i.dir, err)
		}
		return nil, fmt.Errorf("make tracing instance: %w", err)
	}
	if err := i.Write("tracing_on", "0"); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// Write writes text into one of the instance's files.
func (i *Instance) Write(file, text string) error {
	return writeFile(filepath.Join(i.dir, file), text)
}

// writeFile writes without truncating: files that collect what is written keep what they have.
func writeFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", text, name, err)
	}
	return nil
}

// Read reads one of the instance's files.
func (i *Instance) Read(file string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(i.dir, file))
	if err != nil {
		return nil, fmt.Errorf("read tracing instance: %w", err)
	}
	return b, nil
}

// CPUs lists the CPUs the instance has buffers for, ascending.
func (i *Instance) CPUs() ([]int, error) {
	ents, err := os.ReadDir(filepath.Join(i.dir, "per_cpu"))
	if err != nil {
		return nil, fmt.Errorf("list CPUs of tracing instance: %w", err)
	}
	var cpus []int
	for _, e := range ents {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "cpu")); err == nil {
			cpus = append(cpus, n)
		}
	}
	slices.Sort(cpus)
	return cpus, nil
}

// Raw opens the buffer of one CPU. The caller closes it before the instance.
func (i *Instance) Raw(cpu int) (*Pipe, error) {
	name := filepath.Join(i.dir, "per_cpu", fmt.Sprintf("cpu%d", cpu), "trace_pipe_raw")
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &Pipe{fd}, nil
}

// Pipe is the buffer of one CPU, page by page.
type Pipe struct{ fd int }

// Read takes the next page, whole or as far as it is filled, into b, which must have room for it; 0 if there is none now.
func (p *Pipe) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(p.fd, b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		return max(n, 0), err
	}
}

// FD is the buffer's descriptor, which does not block, for those who move pages by splice.
func (p *Pipe) FD() int { return p.fd }

// Close closes the buffer.
func (p *Pipe) Close() error { return unix.Close(p.fd) }

// Close removes the instance, and the kernel everything that was set in it.
func (i *Instance) Close() error {
	if err := removeInstance(i.dir); err != nil {
		return err
	}
	return i.lease.Release()
}

// busy is how long an instance may stay in use by readers that are just ending.
const busy = 2 * time.Second

func removeInstance(dir string) error {
	_ = writeFile(filepath.Join(dir, "tracing_on"), "0") // first, so that it ends even where it cannot be removed
	// Triggers of a synthetic event that go with their instance leave the event in use (seen on 6.12).
	removeTriggers(dir, SyntheticSystem)
	for deadline := time.Now().Add(busy); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(deadline):
			return fmt.Errorf("remove tracing instance %s: %w", dir, err)
		}
		if removeTriggers(dir, "*") {
			deadline = time.Now().Add(busy)
		}
	}
}

// removeTriggers takes the triggers of a system's events out of an instance that is busy: histograms whose variables others read keep it in use.
// Those that are read go only when their readers have gone, so it takes as many rounds as they are chained; any is false when none went.
func removeTriggers(dir, system string) (any bool) {
	files, _ := filepath.Glob(filepath.Join(dir, "events", system, "*", "trigger"))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			if i := strings.LastIndex(line, " ["); i > 0 && strings.HasSuffix(line, "]") { // the state of a histogram
				line = line[:i]
			}
			if writeFile(name, "!"+line) == nil { // what does not go now may go in the next round
				any = true
			}
		}
	}
	return any
}

// CleanInstance removes the instance of a lease whose owner is gone.
func CleanInstance(r lease.Record) error {
	if !strings.HasPrefix(r.Name, instancePrefix) || strings.ContainsAny(r.Name, "/\x00") {
		return fmt.Errorf("tracing instance %q: no name of ours", r.Name)
	}
	f, err := Find()
	if err != nil {
		return err
	}
	defer f.Close()
	return removeInstance(f.path("instances", r.Name))
}

// Global reads a file of the whole machine's tracing, such as set_graph_function, trimmed; "" if there is none.
func (f FS) Global(file string) string {
	b, err := os.ReadFile(f.path(file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// PageHeader gives the text of events/header_page, for traceevent.ParsePageHeader.
func (f FS) PageHeader() ([]byte, error) {
	b, err := os.ReadFile(f.path("events", "header_page"))
	if err != nil {
		return nil, fmt.Errorf("read page header: %w", err)
	}
	return b, nil
}
