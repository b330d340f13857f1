package promises

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// typeless are questions to a kernel that has everything but BTF, with what is said: what tracefs and symbols tell is enough for many, and
// the others name what is missing and a way on.
var typeless = []struct {
	args   string // · is a space within a word
	code   int
	says   string
	beside string // on stderr
	rest   bool   // asked by make promises alone: each takes a guest a second or two
}{
	{"trace -q -e tracepoint:sched:sched_switch{printf(\"%d\\n\",args.next_pid>=0);exit();}", 0, `(?m)^1$`, "", false},
	{"trace -q -e kprobe:vfs_read{@[func]=count();} --for 100ms", 0, ``, "", true},
	{"trace -q -e rawtracepoint:sched_switch{@=count();} -c FATHOM·version", 0, `@: [1-9]`, "", false},
	{"trace -q -e rawtracepoint:nosuch{@=count();}", 1, ``, `(?m)^stdin:1:1-21: ERROR: .*rawtracepoint`, true},
	{"trace -q -e struct·list_head{struct·list_head*next;};kprobe:vfs_read{@=((struct·list_head*)arg0).next;} --for 10ms", 0, ``, "", true},
	{"trace -q -e fentry:vfs_read{@=count();}", 1, ``, `(?s)BTF not supported: .*CONFIG_DEBUG_INFO_BTF.*HINT: kprobe:vfs_read needs no types`, false},
	{"trace -q -e BEGIN{print(curtask.pid);}", 1, ``, `HINT: the kernel's types are not to be had here .*: write those that you need`, true},
	{"trace -q -e BEGIN{print(((struct·task_struct*)0).pid);}", 1, ``, `HINT: the kernel's types are not to be had here`, true},
	{"rank sched:sched_switch --by next_comm --engine hist -q -- FATHOM version", 0, `hits +next_comm`, "", false},
	{"rank sched:sched_switch --by next_comm --engine bpf -q -- FATHOM version", 0, `hits +next_comm`, "", true},
	{"record -q -e sched:sched_switch -o NEW -- FATHOM version", 0, ``, "", false},
	{"view NEW", 0, `sched_switch`, "", true},
	{"packet --for 10ms udp", 69, ``, `(?m)^fathom: follow packets\nbecause: BTF not supported.*\ntry: fathom doctor\ntry: fathom rank skb:kfree_skb`, false},
	{"packet drops --for 10ms", 69, ``, `fathom: follow packets`, true},
	{"nic lo", 0, `(?m)^lo `, "", true},
	{"nic lo --latency --for 10ms", 69, ``, `(?m)^fathom: measure the stages of packets\nbecause: BTF not .*\ntry: fathom doctor\ntry: fathom nic --health`, false},
	{"nic --work --for 10ms", 69, ``, `(?m)^try: fathom rank workqueue:workqueue_execute_start --by function$`, true},
	{"nic --sockets", 69, ``, `(?m)^fathom: list the sockets of the kernel\nbecause: BTF not`, true},
	{"watch addr --for 10ms", 1, ``, `by the ports of netlink sockets only .*BTF not supported`, false},
	{"explain struct list_head", 69, ``, `(?m)^fathom: read the kernel's types\n(.*\n)+try: fathom explain struct NAME --of DUMP$`, false},
	{"explain function vfs_read", 0, `(?s)no prototype in BTF.*kprobe:vfs_read\n +here +yes`, "", true},
	{"explain syscall openat", 0, `by the format of syscalls:sys_enter_openat`, "", true},
}

// TestNoTypes asks a guest whose kernel shows no BTF.
func TestNoTypes(t *testing.T) {
	ktest.NeedGuest(t, ktest.Kprobe, ktest.Tracefs, ktest.HistTriggers, ktest.RawTracepoint)
	bin, command := fathom(t), mask("/sys/kernel/btf")
	words := strings.NewReplacer("NEW", t.TempDir()+"/r", "FATHOM", bin)
	asked, told := 0, 0
	for _, q := range typeless {
		if q.rest && os.Getenv(EnvTimes) == "" {
			continue
		}
		var args []string
		for _, a := range strings.Fields(q.args) {
			args = append(args, strings.ReplaceAll(words.Replace(a), "·", " "))
		}
		got := run(t, command(bin, args...))
		if got.code != q.code || !regexp.MustCompile(q.says).MatchString(got.stdout) || !regexp.MustCompile(q.beside).MatchString(got.stderr) {
			t.Errorf("fathom %s: exit code %d\n%s%s", q.args, got.code, got.stdout, got.stderr)
		}
		asked++
		if q.code != 0 {
			told++
		}
	}
	if got := run(t, exec.Command(bin, "trace", "-q", "-e", "fentry:vfs_read{exit();}", "--for", "1ms")); got.code != 0 {
		t.Errorf("with BTF: %s", got.stderr) // it was that which was missing
	}
	measured(t, "%d questions to a kernel without BTF: %d answered, %d told what is missing and what leads on", asked, asked-told, told)
}
