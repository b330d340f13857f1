package promises

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/prog/bpfelf"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
)

// envKilled is in the environment of all that is killed.
const envKilled = "FATHOM_KILLED"

// victim is a command that holds something.
type victim struct {
	args  string
	needs []ktest.Feature
	// keeps says that a process in the background is what is killed: by these commands a person asked for it.
	keeps  []string
	beside string // runs meanwhile, and is killed afterwards
	down   string // takes away what was asked for, if the command came so far
	here   bool   // not in guests
	guest  bool   // boots one
}

// victims are all verbs that hold anything while they run. LAB is a network that is kept, NEW a name that nobody has, OBJECT an XDP program, · a space within a
// word.
var victims = []victim{
	{args: "trace -e tracepoint:sched:sched_switch{@[comm]=count();}", needs: []ktest.Feature{ktest.Tracepoint, ktest.Ringbuf}},
	{args: "trace -e kprobe:vfs_read{@[comm]=hist(arg2);}", needs: []ktest.Feature{ktest.Kprobe, ktest.Ringbuf}},
	{args: "trace -e fentry:vfs_read,fexit:vfs_read{@[comm]=count();}", needs: []ktest.Feature{ktest.Fentry, ktest.Ringbuf}},
	{args: "trace -e profile:hz:99{@[kstack]=count();}", needs: []ktest.Feature{ktest.Profile, ktest.Ringbuf}},
	{args: "trace -e interval:ms:10{print(1);} -c SLEEP", needs: []ktest.Feature{ktest.Profile, ktest.Ringbuf}},
	{args: "trace graph vfs_read", needs: []ktest.Feature{ktest.Tracefs, ktest.Kprobe}},
	{args: "rank sched:sched_switch --by kstack --engine bpf", needs: []ktest.Feature{ktest.Tracepoint, ktest.BTF}},
	{args: "rank sched:sched_switch --by next_comm --engine hist", needs: []ktest.Feature{ktest.HistTriggers}},
	{args: "rank --stack-depth --allow-system-changes", needs: []ktest.Feature{ktest.Kprobe, ktest.Tracefs}},
	{args: "rank --overlap vfs_read", needs: []ktest.Feature{ktest.Kprobe, ktest.BTF}},
	{args: "record -q -e sched:* -o NEW", needs: []ktest.Feature{ktest.Tracefs}},
	{args: "record -q -e sched:* --segment-time 50ms -o NEW", needs: []ktest.Feature{ktest.Tracefs}},
	{args: "record -q -e uprobe:SELF:main.main -o NEW", needs: []ktest.Feature{ktest.Tracefs, ktest.Uprobe}, here: true},
	{keeps: []string{"record create NAME --output=NEW", "record enable -e sched:*", "record start"}, needs: []ktest.Feature{ktest.Tracefs}},
	{keeps: []string{"record create NAME --output=NEW --snapshot", "record enable -e sched:*"}, needs: []ktest.Feature{ktest.Tracefs}},
	{args: "packet --netns LAB.a udp", needs: []ktest.Feature{ktest.BTF, ktest.RawTracepoint}},
	{args: "packet drops --netns LAB.a", needs: []ktest.Feature{ktest.BTF, ktest.RawTracepoint}},
	{args: "watch addr link route sysctl netns", needs: []ktest.Feature{ktest.BTF, ktest.RawTracepoint}},
	{args: "nic eth0 --netns LAB.a --latency", needs: []ktest.Feature{ktest.BTF, ktest.RawTracepoint}},
	{args: "nic --sockets --for 60s --netns LAB.a", needs: []ktest.Feature{ktest.BTF, ktest.RawTracepoint}},
	{args: "nic --work", needs: []ktest.Feature{ktest.BTF, ktest.RawTracepoint}},
	{args: "nic --modes --for 200ms", needs: []ktest.Feature{ktest.NetNS}},
	{args: "bypass rx -i eth0 --netns LAB.b", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass tx -i eth0 --netns LAB.a --to 192.0.2.2", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass echo -i eth0 --netns LAB.b", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass l2fwd -i eth0 --netns LAB.b", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass rtt -i eth0 --netns LAB.a --to 192.0.2.2:7", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass why --for 60s --netns LAB.b", beside: "bypass rx -i eth0 --netns LAB.b", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP, ktest.BTF, ktest.RawTracepoint}},
	{args: "bypass prog attach OBJECT -i eth0 --netns LAB.b", needs: []ktest.Feature{ktest.XDP}},
	{args: "bypass prog attach OBJECT -i eth0 --netns LAB.b --pin", needs: []ktest.Feature{ktest.XDP}, down: "bypass prog detach -i eth0 --netns LAB.b"},
	{args: "bypass prog run OBJECT -i eth0 --netns LAB.b -- SLEEP", needs: []ktest.Feature{ktest.XDP}},
	{args: "bypass run -i eth0 --netns LAB.b --port 4097 -- SLEEP", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass run --backend packet -i eth0 --netns LAB.b --port 4098 -- SLEEP", needs: []ktest.Feature{ktest.NetNS}},
	{args: "bypass run -i eth0 --netns LAB.b --port 4099 -- SELF lab listen udp 192.0.2.2:4099", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass compare --ways udp,xsk-spin", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "bypass tick --ways sockets,xsk-spin", needs: []ktest.Feature{ktest.XDP, ktest.AFXDP}},
	{args: "lab up --name NAME x:192.0.2.9/30·--·y:192.0.2.10/30", needs: []ktest.Feature{ktest.NetNS}, down: "lab down NAME"},
	{args: "lab exec --lab KEPT a -- SLEEP", needs: []ktest.Feature{ktest.NetNS}, here: true},
	{args: "lab listen --lab KEPT --in b udp 192.0.2.2:4096", needs: []ktest.Feature{ktest.NetNS}},
	{args: "lab try who-reads", needs: []ktest.Feature{ktest.NetNS}, here: true},
	{args: "lab try dropped-packet", needs: []ktest.Feature{ktest.NetNS}, here: true},
	{args: "lab boot -- sleep 60", here: true, guest: true},
	{args: "demo", needs: []ktest.Feature{ktest.NetNS, ktest.Tracepoint}},
	{args: "doctor"},
	{args: "view --serve 127.0.0.1:0 RECORDING", here: true},
}

// site is where victims are killed.
type site struct {
	t         *testing.T
	bin       string
	kept      string // name of the lab that a person asked for
	dir       string // of what victims write
	tmp       string // their TMPDIR
	recording string
	object    string // an XDP program
	serial    int
	before    map[string]bool // what was there
	programs  int             // of BPF, in guests
	held      int             // how many victims held something by a name when they were killed
	pids      []int
}

// TestKills kills all verbs that hold anything, drawn at random, at moments drawn at random: nothing of them is left after the next start,
// or doctor --clean, and what a person asked to keep is as it was.
func TestKills(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := &site{t: t, bin: fathom(t), kept: fmt.Sprintf("kept%d", os.Getpid()), dir: t.TempDir(), tmp: t.TempDir()}
	do(t, s.bin, "lab", "up", "--name", s.kept, "--while", strconv.Itoa(os.Getpid()), "a:192.0.2.1/30 -- b:192.0.2.2/30")
	defer do(t, s.bin, "lab", "down", s.kept)
	s.recording = filepath.Join(s.dir, "recording")
	if ktest.Detect(ktest.Tracefs) == nil {
		do(t, s.bin, "record", "-q", "-e", "sched:sched_process_exit", "-o", s.recording, "--for", "10ms")
	}
	s.object = filepath.Join(s.dir, "pass.o")
	pass, err := bpfelf.Write("xdp", "pass", asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}) // XDP_PASS
	if err == nil {
		err = os.WriteFile(s.object, pass, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.before, s.programs = s.things(), programs(t)
	var able []victim
	for _, v := range victims {
		if !slices.ContainsFunc(v.needs, func(f ktest.Feature) bool { return ktest.Detect(f) != nil }) && !(v.here && ktest.InGuest()) &&
			!(v.guest && (os.Getenv(EnvTimes) == "" || os.Getenv(ktest.EnvGuests) == "")) {
			able = append(able, v)
		}
	}
	r, died := dice(t), map[string]int{}
	n := times(t, sample(20, 2))
	order := r.Perm(len(able)) // each comes once before one comes twice
	for i := range n {
		v := able[order[i%len(order)]]
		s.kill(v, r)
		died[v.name()]++
		s.clean(v, r)
	}
	if out := do(t, s.bin, "lab", "list"); strings.Count(out, s.kept) != 2 {
		t.Errorf("the lab that was kept is gone:\n%s", out)
	}
	t.Logf("%v", died)
	measured(t, "%d kills of %d of %d commands that hold something; %d held something that has a name; nothing left", n, len(died), len(victims), s.held)
}

// sample is how much is done where nothing is said of it: here, or in a guest.
func sample(here, guest int) int {
	if ktest.InGuest() {
		return guest
	}
	return here
}

func (v victim) name() string { return v.args + strings.Join(v.keeps, "; ") }

// command makes a command line, with names for what has to be new.
func (s *site) command(line string) *exec.Cmd {
	sleep := "/bin/sleep 60"
	if ktest.InGuest() {
		sleep = s.bin + " trace -e BEGIN{}" // there is no other program that waits
	}
	name := strings.NewReplacer("NAME", fmt.Sprintf("new%d", s.serial), "NEW", filepath.Join(s.dir, fmt.Sprintf("new%d", s.serial)),
		"LAB", "fathom.0."+s.kept, "KEPT", s.kept, "RECORDING", s.recording, "OBJECT", s.object, "SELF", s.bin)
	var args []string
	for _, w := range strings.Fields(line) {
		switch w = name.Replace(w); {
		case w == "SLEEP" && args[len(args)-1] == "-c":
			args = append(args, sleep)
		case w == "SLEEP":
			args = append(args, strings.Fields(sleep)...)
		default:
			args = append(args, strings.ReplaceAll(w, "·", " "))
		}
	}
	cmd := exec.Command(s.bin, args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envKilled, os.Getpid()), "TMPDIR="+s.tmp)
	return cmd
}

// kill starts a victim, and kills it at some moment.
func (s *site) kill(v victim, r *rand.Rand) {
	s.t.Helper()
	s.serial++
	within := sample(400, 3000)
	if v.guest {
		within = 4000
	}
	after := time.Duration(r.IntN(within)) * time.Millisecond
	if v.keeps != nil {
		for _, line := range v.keeps {
			if got := run(s.t, s.command(line)); got.code != 0 {
				s.t.Fatalf("fathom %s: exit code %d: %s", line, got.code, got.stderr)
			}
		}
		time.Sleep(after / 8)
		keepers := s.processes()
		if len(keepers) == 0 {
			s.t.Errorf("%s: nobody keeps it", v.name())
		}
		s.note()
		for _, pid := range slices.Collect(maps.Keys(keepers)) {
			s.pids = append(s.pids, pid)
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		return
	}
	if v.beside != "" {
		other := s.command(v.beside)
		if err := other.Start(); err != nil {
			s.t.Fatal(err)
		}
		s.pids = append(s.pids, other.Process.Pid)
		defer func() {
			_ = other.Process.Kill() // it may have ended
			_ = other.Wait()
		}()
	}
	cmd := s.command(v.args)
	in, err := cmd.StdinPipe() // open: lab try waits for answers
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = io.Discard, io.Discard, time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.pids = append(s.pids, cmd.Process.Pid)
	time.Sleep(after)
	s.note()
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
	if v.down != "" {
		run(s.t, s.command(v.down))
	}
}

// note counts those that hold something by a name.
func (s *site) note() {
	now := s.things()
	for thing := range now {
		if !s.before[thing] {
			s.held++
			return
		}
	}
}

// clean has the next start, or the doctor, clean up, until nothing is left.
func (s *site) clean(v victim, r *rand.Rand) {
	s.t.Helper()
	how := []string{"doctor", "--clean"}
	if r.IntN(2) == 0 && ktest.Detect(ktest.Tracepoint) == nil {
		how = []string{"rank", "sched:sched_process_exit", "--for", "1ms", "-q"}
	}
	eventually(s.t, func() string {
		var left []string
		if got := run(s.t, exec.Command(s.bin, how...)); got.code != 0 { // somebody who traces all there is has our event for a moment
			left = append(left, got.stdout+got.stderr)
		}
		for thing := range s.things() {
			if !s.before[thing] {
				left = append(left, thing)
			}
		}
		for _, command := range s.processes() {
			left = append(left, "process "+command)
		}
		if n := programs(s.t); n > s.programs {
			left = append(left, fmt.Sprintf("%d BPF programs", n-s.programs))
		}
		if len(left) == 0 {
			return ""
		}
		slices.Sort(left)
		return fmt.Sprintf("%s was killed, and after fathom %s there are: %s", v.name(), strings.Join(how, " "), strings.Join(left, "; "))
	})
}

// things are what outlives a process by its name: leases, namespaces, mounts, temporary files; of tracefs what has the number of one
// that was killed, and in a guest all there is.
func (s *site) things() map[string]bool {
	out := map[string]bool{}
	add := func(what, pattern string, ours func(name string) bool) {
		names, _ := filepath.Glob(pattern) // patterns are constants
		for _, n := range names {
			if ours(filepath.Base(n)) {
				out[what+" "+n] = true
			}
		}
	}
	any := func(string) bool { return true }
	add("namespace", netns.RunDir+"/*", any)
	add("temporary", s.tmp+"/*", any)
	add("lease", "/run/fathom/*.json", any)
	add("folder", "/run/fathom/*", func(name string) bool { return !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".json") })
	killed := func(name string) bool {
		return ktest.InGuest() || slices.ContainsFunc(s.pids, func(pid int) bool {
			return strings.HasPrefix(name, fmt.Sprintf("fathom-%d-", pid)) || strings.Contains(name, fmt.Sprintf("fathom_%d_", pid))
		})
	}
	add("instance", "/sys/kernel/tracing/instances/*", killed)
	for _, file := range []string{"dynamic_events", "synthetic_events"} {
		text, _ := os.ReadFile("/sys/kernel/tracing/" + file) // not every kernel has them
		for line := range strings.Lines(string(text)) {
			if killed(line) {
				out[file+" "+strings.TrimSpace(line)] = true
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 {
			out["mount "+f[4]] = true
		}
	}
	if ktest.InGuest() {
		if on, err := os.ReadFile("/proc/sys/kernel/stack_tracer_enabled"); err == nil {
			out["stack tracer "+strings.TrimSpace(string(on))] = true
		}
	}
	return out
}

// processes are those of victims, by what their environment has.
func (s *site) processes() map[int]string {
	out := map[int]string{}
	envs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, e := range envs {
		b, err := os.ReadFile(e)
		if err != nil || !strings.Contains("\x00"+string(b), fmt.Sprintf("\x00%s=%d\x00", envKilled, os.Getpid())) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		if command, _ := os.ReadFile(filepath.Join(filepath.Dir(e), "cmdline")); len(command) > 0 {
			out[pid] = strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " ")
		}
	}
	return out
}

// programs counts the BPF programs of a guest; on the machine at hand others have theirs.
func programs(t *testing.T) (n int) {
	t.Helper()
	if !ktest.InGuest() {
		return 0
	}
	for id, err := ebpf.ProgramGetNextID(0); err == nil; id, err = ebpf.ProgramGetNextID(id) {
		n++
	}
	return n
}
