package promises

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// writer is a command that writes files. OUT is the folder on the disk that fails, RECORDING and PACKETS are what there is to read, · is a space within a
// word.
type writer struct {
	args    string
	needs   []ktest.Feature
	records bool // OUT/r is a recording, of which all that was written is to be readable
}

var writers = []writer{
	{"record -q -e raw_syscalls:sys_enter --buffer 64k -o OUT/r -- SELF", []ktest.Feature{ktest.Tracefs}, true},
	{"record -q -e raw_syscalls:sys_enter --segment-size 64k --buffer 64k -o OUT/r -- SELF", []ktest.Feature{ktest.Tracefs}, true},
	{"trace -q -e tracepoint:raw_syscalls:sys_enter·/pid==cpid/{printf(\"%d\\n\",args.id);} -o OUT/text -c SELF", []ktest.Feature{ktest.Tracepoint, ktest.Ringbuf}, false},
	{"rank raw_syscalls:sys_enter --by kstack --folded OUT/folded -q -- SELF", []ktest.Feature{ktest.Tracepoint, ktest.BTF}, false},
	{"rank raw_syscalls:sys_enter --by kstack --flame OUT/flame.svg -q -- SELF", []ktest.Feature{ktest.Tracepoint, ktest.BTF}, false},
	{"view RECORDING --to perfetto -o OUT/perfetto", nil, false},
	{"view RECORDING --to chrome -o OUT/chrome", nil, false},
	{"view RECORDING --to ctf -o OUT/ctf", nil, false},
	{"view RECORDING -j -o OUT/json", nil, false},
	{"view RECORDING --html OUT/page.html", nil, false},
	{"packet explain PACKETS --html OUT/page.html", nil, false},
	{"packet explain PACKETS -w OUT/packets.pcapng", nil, false},
	{"packet explain PACKETS --chrome OUT/packets.json", nil, false},
	{"nic lo --html OUT/map.html", nil, false},
}

// TestFull: whatever file is being written, and wherever the disk is full or breaks: the command ends, says so, and exits with a code that
// is no success and no bug; what a recording had until then is readable.
func TestFull(t *testing.T) {
	needRoot(t)
	if ktest.InGuest() {
		t.Skip("as on the machine at hand")
	}
	bin, packets := fathom(t), absolute(t, "../../answers/packet/testdata/mixed.json")
	recording := filepath.Join(t.TempDir(), "recording")
	if err := errors.Join(ktest.Detect(ktest.Tracefs), ktest.Detect(ktest.Tracepoint)); err != nil {
		t.Skip(err)
	}
	if got := working(t, exec.Command(bin, "record", "-q", "-e", "raw_syscalls:sys_enter", "-o", recording, "--", worker(t)), 2000); got.code != 0 {
		t.Fatal(got)
	}
	r, failures, unbroken := dice(t), 0, 0
	for i := range times(t, 2*len(writers)) {
		w := writers[i%len(writers)]
		if ktest.Detect(ktest.Tracefs) != nil && len(w.needs) > 0 {
			continue
		}
		d := &disk{folder: t.TempDir(), errno: []unix.Errno{unix.ENOSPC, unix.EIO}[r.IntN(2)], from: 1 + r.Int64N(1<<r.IntN(7))}
		words := strings.NewReplacer("OUT", d.folder, "RECORDING", recording, "PACKETS", packets, "SELF", worker(t), "·", " ")
		var args []string
		for _, a := range strings.Fields(w.args) {
			args = append(args, words.Replace(a))
		}
		got := d.run(t, bin, args)
		failed := d.writes.Load() >= d.from
		what := fmt.Sprintf("fathom %s, where write %d of %d fails with %q", w.args, d.from, d.writes.Load(), d.errno)
		switch {
		case !failed && got.code != 0:
			t.Errorf("%s: exit code %d\n%s", what, got.code, got.stderr)
		case !failed:
			unbroken++
		case got.code == 0 || got.code == 70 || !strings.Contains(strings.ToLower(got.stderr), strings.ToLower(d.errno.Error())):
			t.Errorf("%s: exit code %d\n%s", what, got.code, got.stderr)
		default:
			failures++
		}
		if failed && w.records {
			readable(t, bin, what, filepath.Join(d.folder, "r"))
		}
	}
	if failures == 0 {
		t.Error("no write failed")
	}
	measured(t, "%d times a write failed (ENOSPC, EIO) under %d commands that write files: each said so, recordings were readable; %d ran to their end before", failures, len(writers), unbroken)
}

// working has a command that runs this program make so many system calls.
func working(t *testing.T, cmd *exec.Cmd, n int) ran {
	t.Helper()
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", envRole, work, n))
	return run(t, cmd)
}

// run runs a command whose writes below the folder fail. What it starts itself makes system calls.
func (d *disk) run(t *testing.T, bin string, args []string) ran {
	t.Helper()
	cmd := as(trapped, bin, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		d.watch(t, cmd.Process.Pid, gone)
	}()
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	_ = cmd.Wait() // the code is looked at
	close(gone)
	<-watched
	if !late.Stop() {
		t.Fatalf("fathom %v does not end: %s", args, errs.String())
	}
	return ran{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// readable reads what a recording that could not go on has. Where not even its description could be written there is nothing to read.
func readable(t *testing.T, bin, what, dir string) {
	t.Helper()
	got := run(t, exec.Command(bin, "view", dir, "--stats"))
	if got.code == 0 || strings.Contains(got.stderr, "no recording") || strings.Contains(got.stderr, "no such file") {
		return
	}
	t.Errorf("%s: the recording is not read: exit code %d\n%s", what, got.code, got.stderr)
}
