package promises

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestTwoUsers has two users trace at once, eight programs in all: root, and somebody who has the two capabilities that tracing takes. Each
// counts the calls of its own command, exactly, and nobody's besides.
func TestTwoUsers(t *testing.T) {
	needRoot(t)
	ktest.Need(t, ktest.RawTracepoint, ktest.BTF, ktest.Ringbuf)
	if ktest.InGuest() && os.Getenv(EnvTimes) == "" {
		t.Skip("as on the machine at hand: with make promises")
	}
	bin, self := fathom(t), worker(t)
	rounds := times(t, 1)
	if rounds > 1 {
		rounds = max(1, rounds/20)
	}
	r := dice(t)
	for range rounds {
		var wg sync.WaitGroup
		for i := range 8 {
			n := 1 + r.IntN(sample(50_000, 5_000))
			user := "root"
			cmd := exec.Command(bin, "trace", "--strict", "-e", `rawtracepoint:sys_enter /pid == cpid && args.id == 110/ { @ = count(); }`, "-c", self)
			if i%2 == 1 {
				user = "nobody"
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}}
			}
			wg.Go(func() {
				got := working(t, cmd, n)
				if got.code != 0 || !strings.Contains(got.stdout, fmt.Sprintf("@: %d\n", n)) {
					t.Errorf("%s, trace %d: %d calls, exit code %d\n%s%s", user, i, n, got.code, got.stdout, got.stderr)
				}
			})
		}
		wg.Wait()
	}
	measured(t, "%d times eight traces of two users at once, one of them with cap_bpf and cap_perfmon alone: each counted its own", rounds)
}
