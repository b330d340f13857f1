package promises

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// without becomes a program without capabilities, or if there are folders, one that sees those empty. It runs in a mount namespace
// of its own then.
func without(folders, args []string) error {
	for _, f := range folders {
		if err := unix.Mount("tmpfs", f, "tmpfs", unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("mask %s: %w", f, err)
		}
	}
	if len(folders) == 0 { // root gets none again by execve (capabilities(7))
		const noRoot = 1
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil {
			return err
		}
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// place is where something is missing that fathom could use.
type place struct {
	name    string
	command func(bin string, args ...string) *exec.Cmd
	noBTF   bool // types cannot be read
}

var places = []place{
	{"everything there is here", exec.Command, false},
	{"an ordinary user", func(bin string, args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		return cmd
	}, false},
	{"root of a user namespace", func(bin string, args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
		return cmd
	}, false},
	{"root of an ordinary user's namespace", func(bin string, args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		host := os.Geteuid()
		if host == 0 {
			host = nobody
		}
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{NoSetGroups: true}}
		return cmd
	}, false},
	{"root without capabilities", func(bin string, args ...string) *exec.Cmd { return as(bare, bin, args...) }, false},
	{"a filter that forbids bpf, perf, mounts and namespaces", func(bin string, args ...string) *exec.Cmd { return as(refused, bin, args...) }, false},
	{"no /sys", mask("/sys"), true},
	{"no tracefs", mask("/sys/kernel/tracing"), false},
	{"no BTF", mask("/sys/kernel/btf"), true},
}

// nobody owns nothing.
const nobody = 65534

// mask makes commands that see folders empty.
func mask(folders ...string) func(string, ...string) *exec.Cmd {
	return func(bin string, args ...string) *exec.Cmd {
		cmd := as(masked+" "+strings.Join(folders, " "), bin, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		return cmd
	}
}

// question is asked in each place. What reads only answers everywhere.
type question struct {
	args  []string
	want  string // in what is said on success
	reads bool
	btf   bool // of the kernel's types
	no    bool // exit code 1 is an answer
}

// questions are asked wherever the files to read are; [ofKernel] alone in guests.
func questions(t *testing.T) []question {
	oops, packets := everyones(t, "../../oops/testdata/debian-6.1-div.txt"), everyones(t, "../../answers/packet/testdata/mixed.json")
	perf := everyones(t, "../../record/perfdata/testdata/packed.data")
	return append([]question{
		{args: []string{"explain", oops}, want: "why", reads: true},
		{args: []string{"view", perf, "--stats"}, want: "events", reads: true},
		{args: []string{"packet", "explain", packets}, want: "LOST", reads: true},
	}, ofKernel()...)
}

func ofKernel() []question {
	return []question{
		{args: []string{"version"}, want: "linux/", reads: true},
		{args: []string{"help", "lang"}, want: "example", reads: true},
		{args: []string{"trace", "--help"}, want: "Examples:", reads: true},
		{args: []string{"trace", "-d", "asm", "-e", "BEGIN { @ = 1; }"}, want: "exit", reads: true},
		{args: []string{"explain", "errno", "EPERM"}, want: "operation not permitted", reads: true},
		{args: []string{"explain", "struct", "list_head"}, want: "size: 16", reads: true, btf: true},
		{args: []string{"trace", "-lv", "fentry:vfs_read"}, want: "size_t count", reads: true, btf: true},
		{args: []string{"record", "list"}, reads: true},
		{args: []string{"lab", "list"}, want: "NAMESPACE", reads: true},
		{args: []string{"doctor"}, want: "security", no: true},
		{args: []string{"trace", "-q", "-e", `BEGIN { printf("hello\n"); exit(); }`}, want: "hello"},
		{args: []string{"trace", "-q", "-e", `tracepoint:sched:sched_switch { printf("seen\n"); exit(); }`, "--for", "20s"}, want: "seen"},
		{args: []string{"trace", "-q", "-e", `rawtracepoint:sched_switch { printf("seen\n"); exit(); }`, "--for", "20s"}, want: "seen"},
		{args: []string{"trace", "-q", "-e", `kprobe:vfs_read { @ = count(); }`, "--for", "50ms"}},
		{args: []string{"trace", "-l", "tracepoint:sched:sched_switch"}, want: "sched:sched_switch"},
		{args: []string{"trace", "graph", "vfs_read", "--for", "50ms"}, no: true},
		{args: []string{"rank", "sched:sched_switch", "--for", "50ms"}, want: "hits"},
		{args: []string{"record", "-q", "-e", "sched:sched_switch", "--for", "50ms", "-o", "NEW"}},
		{args: []string{"packet", "--for", "50ms", "udp port 9"}},
		{args: []string{"watch", "addr", "--for", "50ms"}, no: true},
		{args: []string{"nic", "lo"}, want: "lo"},
		{args: []string{"nic", "lo", "--latency", "--for", "50ms"}, no: true},
		{args: []string{"nic", "--work", "--for", "50ms"}},
		{args: []string{"bypass", "status"}},
		{args: []string{"demo"}},
		{args: []string{"lab", "up", "--name", "NAME", "x:192.0.2.9/30 -- y:192.0.2.10/30"}},
	}
}

// asRoot is the command for root, of the file that was run; verbs that say it themselves call that by its name.
var asRoot = regexp.MustCompile(`(?m)^try: sudo (/\S+/)?fathom `)

// shape is how an operation that failed is told; diagnosis how a program is refused, at its place.
var (
	shape     = regexp.MustCompile(`(?m)^fathom: .+\nbecause: .+\n(try: .+\n)+more: fathom help E-\w+$`)
	diagnosis = regexp.MustCompile(`(?m)^stdin:1:.*: ERROR: .* not supported: .*(\(errno \d+\)|CONFIG_).*$`)
)

// TestLacking: whatever is missing: what only reads answers, and the rest answers too or says in the usual form what it tried, what came
// back and what to do, with the exit code for what the kernel lacks or forbids.
func TestLacking(t *testing.T) {
	if ktest.InGuest() {
		t.Skip("as on the machine at hand; TestLockdown is for guests")
	}
	bin, answered, told := fathom(t), 0, 0
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			if os.Geteuid() != 0 && p.name != "an ordinary user" && p.name != "root of a user namespace" {
				t.Skip("needs root")
			}
			if err := p.is(bin); err != nil {
				t.Skip("this machine has no such place: ", err)
			}
			a, b := p.ask(t, bin, questions(t))
			answered, told = answered+a, told+b
		})
	}
	measured(t, "%d questions in %d places where something is missing: %d answered, %d refused with what was tried and what to do", answered+told, len(places), answered, told)
}

// is says what keeps a place from being. Where user namespaces are forbidden, to ask for one with its numbers mapped would cost two
// descriptors: package syscall of Go 1.26 leaves the pipe of the mapping open if clone fails.
func (p place) is(bin string) error {
	cmd := p.command(bin, "version")
	if a := cmd.SysProcAttr; a != nil && a.UidMappings != nil {
		plain := exec.Command(bin, "version")
		plain.SysProcAttr = &syscall.SysProcAttr{Cloneflags: a.Cloneflags}
		if err := plain.Start(); err != nil {
			return err
		}
		_ = plain.Wait() // only if it can start matters
	}
	return cmd.Run()
}

// ask asks all questions in a place. It counts those that were answered, and those that were refused in form.
func (p place) ask(t *testing.T, bin string, qs []question) (answered, told int) {
	t.Helper()
	for _, q := range qs {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("l%d", os.Getpid())
		words := strings.NewReplacer("NEW", filepath.Join(dir, "r"), "NAME", name)
		var args []string
		for _, a := range q.args {
			args = append(args, words.Replace(a))
		}
		got := run(t, p.command(bin, args...))
		if slices.Contains(args, "up") && got.code == 0 {
			run(t, p.command(bin, "lab", "down", name))
		}
		what := fmt.Sprintf("fathom %s: exit code %d\n%s%s", strings.Join(q.args, " "), got.code, got.stdout, got.stderr)
		if strings.Contains(got.stderr, ".lock") || strings.Contains(got.stderr, "create map .") {
			t.Errorf("how fathom works inside is nobody's matter: %s", what)
		}
		if p.name == "an ordinary user" && got.code == 77 && !asRoot.MatchString(got.stderr) {
			t.Errorf("root is not said to be able to: %s", what)
		}
		switch {
		case got.code == 0 || q.no && got.code == 1 && !strings.Contains(got.stderr, "because: "):
			answered++
			if !strings.Contains(got.stdout, q.want) {
				t.Errorf("no %q: %s", q.want, what)
			}
		case q.reads && !(q.btf && p.noBTF):
			t.Errorf("reading needs nothing: %s", what)
		case got.code == 1 && diagnosis.MatchString(got.stderr):
			told++
		case got.code != 69 && got.code != 77 || !shape.MatchString(got.stderr):
			t.Errorf("not told as it should be: %s", what)
		default:
			told++
		}
	}
	return answered, told
}
