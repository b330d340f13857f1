package keep

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/lab/guest/qmp"
)

// socketTime bounds what QEMU is asked, its greeting too: a monitor talks to one program at a time.
const socketTime = 10 * time.Second

// SocketError is a QMP socket through which no memory could be read; Try says what may help.
type SocketError struct {
	Path string
	Err  error
	Try  string
}

func (e *SocketError) Error() string { return "QMP socket " + e.Path + ": " + e.Err.Error() }

func (e *SocketError) Unwrap() error { return e.Err }

// monitor is the QMP socket of a QEMU that somebody else started, and a folder that it writes memory to.
type monitor struct {
	*qmp.Client
	dir     string
	running bool
}

// FreezeSocket stops the guest of any QEMU that has a QMP socket there.
func FreezeSocket(ctx context.Context, path string) (*Frozen, error) {
	m, err := dialMonitor(ctx, path)
	if err != nil {
		return nil, err
	}
	f := &Frozen{Head: filepath.Join(m.dir, headFile), name: path, thaw: m.thaw, read: map[uint64][]byte{}}
	f.save = func(p piece) (string, error) {
		file := filepath.Join(m.dir, memFile)
		_, err := m.ask(ctx, "pmemsave", map[string]any{"val": p.Addr, "size": p.Size, "filename": file})
		return file, err
	}
	if err := m.stop(ctx, f); err != nil {
		m.thaw()
		return nil, &SocketError{path, err, "let QEMU, which writes memory to files, write to " + os.TempDir() + ", or name another folder in TMPDIR"}
	}
	return f, nil
}

// dialMonitor connects, and makes a folder that belongs to whom QEMU runs as: the socket does, too.
func dialMonitor(ctx context.Context, path string) (*monitor, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, &SocketError{path, err, "start QEMU with -qmp unix:" + path + ",server=on,wait=off"}
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, &SocketError{path, err, "start QEMU with -qmp unix:" + path + ",server=on,wait=off"}
	}
	greet, cancel := context.WithTimeout(ctx, socketTime)
	defer cancel()
	c, err := qmp.New(greet, conn)
	if err != nil {
		return nil, &SocketError{path, err, "give QEMU one more -qmp: another program, such as libvirt, may be talking to this one, or it is no QMP"}
	}
	dir, err := os.MkdirTemp("", "fathom-qmp-")
	if err == nil {
		dir, err = filepath.Abs(dir) // QEMU may be elsewhere
	}
	if err == nil {
		if owner, ok := st.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && owner.Uid != 0 {
			err = os.Chown(dir, int(owner.Uid), int(owner.Gid))
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Close(), os.RemoveAll(dir))
	}
	return &monitor{Client: c, dir: dir}, nil
}

// ask has QEMU answer within a time.
func (m *monitor) ask(ctx context.Context, command string, args any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, socketTime)
	defer cancel()
	return m.Execute(ctx, command, args)
}

// stop stops the guest, and reads where its memory is and what a dump has besides memory.
func (m *monitor) stop(ctx context.Context, f *Frozen) error {
	b, err := m.ask(ctx, "query-status", nil)
	var status struct {
		Running bool `json:"running"`
	}
	if err == nil {
		err = json.Unmarshal(b, &status)
	}
	if err != nil {
		return err
	}
	if m.running = status.Running; m.running {
		if _, err := m.ask(ctx, "stop", nil); err != nil {
			return err
		}
	}
	if b, err = m.ask(ctx, "human-monitor-command", map[string]any{"command-line": "info mtree -f"}); err != nil {
		return err
	}
	var tree string
	if err := json.Unmarshal(b, &tree); err != nil {
		return err
	}
	if f.runs = memoryRuns(tree); len(f.runs) == 0 {
		return errors.New("QEMU names no memory of the guest")
	}
	_, err = m.ask(ctx, "dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + f.Head, "begin": f.runs[0][0], "length": 4096})
	return err
}

// thaw lets the guest go on if it ran before, also when what was asked for was broken off.
func (m *monitor) thaw() {
	if m.running {
		m.ask(context.Background(), "cont", nil) // fails if the guest is over
	}
	m.Close()
	os.RemoveAll(m.dir)
}

// memoryRuns reads where RAM is out of "info mtree -f": of the flat view of the address space "memory", the lines
// "  0000000000100000-000000003fffffff (prio 0, ram): pc.ram @0000000000100000". Neighbours are joined.
func memoryRuns(tree string) (runs [][2]uint64) {
	inside := false
	for line := range strings.Lines(tree) {
		switch {
		case strings.HasPrefix(line, "FlatView"):
			if len(runs) > 0 {
				return joined(runs)
			}
			inside = false
		case strings.HasPrefix(line, ` AS "memory"`):
			inside = true
		case inside && strings.Contains(line, ", ram):"):
			from, rest, _ := strings.Cut(strings.TrimSpace(line), "-")
			to, _, _ := strings.Cut(rest, " ")
			a, err := strconv.ParseUint(from, 16, 64)
			b, err2 := strconv.ParseUint(to, 16, 64)
			if err == nil && err2 == nil && a <= b && b+1 != 0 {
				runs = append(runs, [2]uint64{a, b + 1})
			}
		}
	}
	return joined(runs)
}

func joined(runs [][2]uint64) (out [][2]uint64) {
	slices.SortFunc(runs, func(a, b [2]uint64) int { return int(int64(a[0]>>1) - int64(b[0]>>1)) })
	for _, r := range runs {
		if n := len(out); n > 0 && r[0] <= out[n-1][1] {
			out[n-1][1] = max(out[n-1][1], r[1])
			continue
		}
		out = append(out, r)
	}
	return out
}
