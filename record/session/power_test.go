package session

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/traceevent"
)

// powerEnv makes this test binary record into a folder of a disk until the power is cut, or tell what of it is there.
const powerEnv = "FATHOM_TEST_POWER"

// Where the disk is in the guest, and the recording on it.
const (
	powerDisk   = "/disk"
	powerFolder = powerDisk + "/r"
)

// powered is that binary.
func powered(how string) error {
	if how == "read" {
		return powerRead()
	}
	all := record.Options{Events: []record.Spec{{Pattern: "raw_syscalls:*"}, {Pattern: "sched:*"}}, BufferKB: 256, Leases: lease.Dir{Path: "/tmp/leases"}}
	s, err := NewSegments(Spec{Name: "r", Dir: powerFolder, SegmentTime: 300 * time.Millisecond}, all)
	if err != nil {
		return err
	}
	for told := 0; ; time.Sleep(10 * time.Millisecond) {
		for range 100 {
			_, _, _ = unix.RawSyscall(unix.SYS_GETSID, 0, 0, 0)
		}
		if err := s.Check(); err != nil {
			return err
		}
		for list, _ := s.finisher.list(); told < len(list) && list[told].Account != nil; told++ {
			if list[told].Error != "" {
				return fmt.Errorf("%s: %s", list[told].Dir, list[told].Error)
			}
			fmt.Printf("closed %s %d\n", filepath.Base(list[told].Dir), list[told].Account.Events)
		}
	}
}

// powerRead reads each segment that is there.
func powerRead() error {
	dirs, err := filepath.Glob(powerFolder + "/segment-*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		n, exact, err := powerCount(dir)
		fmt.Printf("read %s %d %v %v\n", filepath.Base(dir), n, exact, err)
	}
	return nil
}

// powerCount counts the events of a segment; closed says if it has its account.
func powerCount(dir string) (n int, closed bool, err error) {
	tr, err := record.Open(dir)
	if err != nil {
		return 0, false, err
	}
	defer tr.Close()
	s := tr.Events()
	for e := range traceevent.All(s) {
		if e.Format != nil {
			n++
		}
	}
	return n, tr.Account != nil, s.Err()
}

// lines hands on whole lines.
type lines struct {
	mu   sync.Mutex
	rest []byte
	to   func(string)
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.to(string(line))
		l.rest = rest
	}
}

// TestPowerCut: a machine that records to a disk (ext4) loses its power, again and again; after the next boot every segment that was
// closed is there, with all its events. What QEMU was given is with its disk, as with one that keeps what it has taken.
func TestPowerCut(t *testing.T) {
	if !ktest.Soak() || os.Getenv(ktest.EnvGuests) == "" {
		t.Skip("for soak: it boots guests of its own")
	}
	mkfs := oracle.Path(t, "mkfs.ext4")
	cache, err := guest.UserCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := cache.Kernel(t.Context(), "debian-6.12")
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	accel, err := guest.ParseAccel(os.Getenv(ktest.EnvAccel))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range 3 {
		image := filepath.Join(t.TempDir(), "disk.img")
		if out, err := exec.Command(mkfs, "-q", image, "256M").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		boot := func(how string, to func(string)) (*guest.Guest, context.CancelFunc) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			g, err := guest.Start(ctx, guest.Options{Kernel: k, Init: exe, Modules: []string{"virtio_pci", "virtio_blk", "ext4"},
				Mounts:   []pid1.Mount{{Source: "/dev/vda", Target: powerDisk, Type: "ext4"}},
				Commands: []pid1.Command{{Args: []string{"/init"}, Env: []string{powerEnv + "=" + how}}},
				QEMUArgs: []string{"-drive", "file=" + image + ",format=raw,if=virtio"}, Accel: accel,
				Stdout: &lines{to: to}, Stderr: &lines{to: func(s string) { t.Log(s) }}})
			if err != nil {
				cancel()
				t.Fatal(err)
			}
			return g, cancel
		}
		want := map[string]int{}
		enough := make(chan struct{})
		g, cancel := boot("record", func(line string) {
			w := strings.Fields(line)
			if len(w) == 3 && w[0] == "closed" && len(want) < 4+3*cut {
				want[w[1]], _ = strconv.Atoi(w[2])
				if len(want) == 4+3*cut {
					close(enough)
				}
			}
		})
		select {
		case <-enough:
		case <-g.Ended():
			_, err := g.Wait()
			t.Fatalf("the guest ended: %v\n%s", err, g.Console())
		}
		if err := unix.Kill(g.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_, _ = g.Wait() // it was killed
		cancel()
		got := map[string]int{}
		g, cancel = boot("read", func(line string) {
			t.Log(line)
			if w := strings.Fields(line); len(w) == 5 && w[0] == "read" && w[3] == "true" && w[4] == "<nil>" {
				got[w[1]], _ = strconv.Atoi(w[2])
			}
		})
		if _, err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		cancel()
		for name, n := range want {
			if m, ok := got[name]; !ok || m != n || n == 0 {
				t.Errorf("cut %d: %s had %d events when it was closed, and has %d (%v)", cut, name, n, m, ok)
			}
		}
	}
}
