package promises

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestLockdown locks a guest down as far as there is, and asks everything of the kernel: what reads answers, what is forbidden is told in
// form, and the doctor names lockdown. It cannot be undone: this is the last test of its guest, by the name of its file.
func TestLockdown(t *testing.T) {
	ktest.NeedGuest(t, ktest.Tracepoint)
	const folder = "/sys/kernel/security"
	if err := unix.Mount("securityfs", folder, "securityfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder+"/lockdown", []byte("confidentiality"), 0); err != nil {
		t.Fatal(err)
	}
	bin := fathom(t)
	qs := ofKernel()
	if os.Getenv(EnvTimes) == "" { // each takes a second or two in a guest
		qs = slices.DeleteFunc(qs, func(q question) bool { return q.reads && !q.btf || q.no || q.args[0] == "lab" || q.args[0] == "bypass" })
	}
	answered, told := place{"a guest that is locked down", exec.Command, false}.ask(t, bin, qs)
	if got := run(t, exec.Command(bin, "doctor")); !strings.Contains(got.stdout, "confidentiality: kernel memory cannot be read") || !strings.Contains(got.stdout, "lockdown=none") {
		t.Errorf("the doctor says\n%s", got.stdout)
	}
	if told == 0 {
		t.Error("nothing was refused")
	}
	measured(t, "%d questions to a kernel under lockdown=confidentiality: %d answered, %d refused with what was tried and what to do", answered+told, answered, told)
}
