package polling

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate/live"
)

// envVictim has this program compare modes in a namespace, by a lease in a folder, until it is killed: "NAMESPACE ADDRESS FOLDER".
const envVictim = "FATHOM_POLLING_VICTIM"

func TestMain(m *testing.M) {
	if v := os.Getenv(envVictim); v != "" {
		fmt.Fprintln(os.Stderr, victim(strings.SplitN(v, " ", 3)))
		os.Exit(1)
	}
	ktest.Main(m, ktest.Config{})
}

func victim(arg []string) error {
	r, err := live.Open(arg[0])
	if err != nil {
		return err
	}
	o, err := options(r, "va")
	if err != nil {
		return err
	}
	o.Leases, o.To, o.For = &lease.Dir{Path: arg[2]}, netip.MustParseAddrPort(arg[1]), time.Hour
	_, err = Compare(context.Background(), o)
	return err
}

// options are those for a device.
func options(r *live.Reader, dev string) (o Options, err error) {
	devs, err := r.NICs(dev)
	if err != nil {
		return o, err
	}
	return Options{Reader: r, Dev: dev, Index: devs[0].Index, For: 600 * time.Millisecond, Rounds: 2, Output: os.Stderr}, nil
}

// pair is one whose near end has settings of its own.
func pair(t *testing.T) *Pair {
	t.Helper()
	ktest.Need(t, ktest.NetNS)
	p, err := NewPair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	set(t, p, deferIRQs, "7")
	set(t, p, groTimeout, "12345")
	return p
}

// file runs f with the path of a setting of the near end.
func file(t *testing.T, p *Pair, name string, f func(path string) error) {
	t.Helper()
	err := p.A.Do(func() error {
		fd, err := netns.Sysfs(false)
		if err != nil {
			return err
		}
		defer os.NewFile(uintptr(fd), "sysfs").Close()
		return f(filepath.Join(fmt.Sprintf("/proc/self/fd/%d", fd), "class/net", p.A.Dev, name))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func set(t *testing.T, p *Pair, name, value string) {
	t.Helper()
	file(t, p, name, func(path string) error { return os.WriteFile(path, []byte(value), 0) })
}

// all are the settings of the near end.
func all(t *testing.T, p *Pair) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range ofDevice {
		file(t, p, name, func(path string) error {
			b, err := os.ReadFile(path)
			out[name] = strings.TrimSpace(string(b))
			return err
		})
	}
	return out
}

var before = map[string]string{deferIRQs: "7", groTimeout: "12345", threaded: "0"}

// TestCompare measures a pair in all modes, and leaves its settings as they were.
func TestCompare(t *testing.T) {
	p := pair(t)
	o, err := options(p.Reader, p.A.Dev)
	if err != nil {
		t.Fatal(err)
	}
	o.To = p.To
	dir := lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	o.Leases = &dir
	m, err := Compare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := errors.Join(m.WriteText(&b), m.WriteJSON(&b)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v\n%s", p.XDP, b.String())
	for _, r := range m.Rows {
		needsNAPI := r.Mode == nic.ByThread
		switch {
		case p.XDP != nil && needsNAPI:
			if !strings.Contains(r.Refused, "no NAPI instances") {
				t.Errorf("%s without NAPI instances: %q", r.Mode, r.Refused)
			}
		case r.Refused != "" || r.Trips == 0 || len(r.Rounds) != 2 || r.Packets < r.Trips || r.Took < o.For:
			t.Errorf("%s: refused %q, %d answers, %d packets in %v, rounds %v", r.Mode, r.Refused, r.Trips, r.Packets, r.Took, r.Rounds)
		}
	}
	if d := cmp.Diff(before, all(t, p)); d != "" {
		t.Errorf("settings are not as before: %s", d)
	}
	if left, err := dir.List(); err != nil || len(left) > 0 {
		t.Errorf("leases are left: %v %v", left, err)
	}
	if _, err := borrow(&o); err != nil {
		t.Error(err)
	} else if _, err := Compare(t.Context(), o); !errors.Is(err, lease.ErrTaken) {
		t.Errorf("two at a time: %v", err)
	}
}

// TestRefused compares a device without NAPI instances.
func TestRefused(t *testing.T) {
	p := pair(t)
	o, err := options(p.Reader, "lo")
	if err != nil {
		t.Fatal(err)
	}
	o.Command, o.Leases = []string{"sh", "-c", "exit 3"}, &lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	m, err := Compare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Rows {
		switch r.Mode {
		case nic.ByThread: // the kernel refuses
			if !strings.Contains(r.Refused, "no NAPI instances") {
				t.Errorf("%s: refused %q", r.Mode, r.Refused)
			}
		case nic.ByBusyPoll: // the settings are shown in the first namespace only
			if !strings.Contains(r.Refused, busyRead) {
				t.Errorf("%s: refused %q", r.Mode, r.Refused)
			}
		default:
			if r.Refused != "" || !strings.Contains(strings.Join(r.Notes, "\n"), "exit status 3") {
				t.Errorf("%s: refused %q, notes %q", r.Mode, r.Refused, r.Notes)
			}
		}
	}
}

// TestKilled kills who compares modes, and has its settings put back by who comes next: also those of a device that refuses a mode.
func TestKilled(t *testing.T) {
	for _, napi := range []bool{true, false} {
		t.Run(fmt.Sprintf("napi=%v", napi), func(t *testing.T) { killed(t, napi) })
	}
}

func killed(t *testing.T, napi bool) {
	p := pair(t)
	if !napi && p.prog != nil {
		if err := p.prog.Close(); err != nil {
			t.Fatal(err)
		}
		p.prog = nil
	}
	dir := lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=/proc/%d/fd/%d %s %s", envVictim, os.Getpid(), p.A.FD(), p.To, dir.Path))
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); all(t, p)[deferIRQs] != "0"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("nothing is set: %s", said.String())
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	gone, err := dir.Clean(map[string]lease.Cleaner{LeaseKind: Clean})
	if err != nil || len(gone) != 1 {
		t.Fatalf("%v %v", gone, err)
	}
	if d := cmp.Diff(before, all(t, p)); d != "" {
		t.Errorf("settings are not as before: %s", d)
	}
}

// TestGone: a device that went while its settings were changed keeps nobody from going on, nor does one whose namespace went.
func TestGone(t *testing.T) {
	p := pair(t)
	o, err := options(p.Reader, p.A.Dev)
	if err != nil {
		t.Fatal(err)
	}
	dir := lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	o.Leases = &dir
	s, err := borrow(&o)
	if err != nil {
		t.Fatal(err)
	}
	o.Index = 1 << 20
	if _, err := borrow(&o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a device that there is not: %v", err)
	}
	r := s.lease.Record()
	s.index = 1 << 20
	if err := s.giveBack(); err != nil {
		t.Error(err)
	}
	for _, netns := range []uint64{p.Reader.NS().Inode, 1} {
		r.Data = fmt.Appendf(nil, `{"netns":%d,"ifindex":%d,"was":{"threaded":"1"}}`, netns, 1<<20)
		if err := Clean(r); err != nil {
			t.Error(err)
		}
	}
}

// TestClean: a lease that holds something else is not acted on.
func TestClean(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{`{`, `{"was":{"../../x":"1"}}`, `{"was":{"threaded":"1; x"}}`} {
		r := lease.Record{Kind: LeaseKind, Data: []byte(data), Owner: lease.Owner{Boot: strings.TrimSpace(string(boot))}}
		if err := Clean(r); err == nil {
			t.Errorf("%s is acted on", data)
		}
	}
	r := lease.Record{Kind: LeaseKind, Data: []byte(`{"was":{"threaded":"1"}}`), Owner: lease.Owner{Boot: "another"}}
	if err := Clean(r); err != nil {
		t.Errorf("settings of another boot: %v", err)
	}
}
