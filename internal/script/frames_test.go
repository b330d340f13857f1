package script

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// TestFrames walks the stacks of a program without frame pointers by its call frame information. The chain of calls is the
// source's; ustack() does not see it.
func TestFrames(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("FATHOM_GUEST") != "" || runtime.GOARCH != "amd64" {
		t.Skip("needs root on an x86-64 machine with a compiler")
	}
	ktest.Need(t, ktest.Uprobe)
	path := buildTestdata(t, "gcc", "nofp.c", "-O2", "-fomit-frame-pointer")
	chain := regexp.MustCompile(`^leaf\+0 by\+\d+ (\S+\+\d+ )+sorter\+\d+ varying\+\d+ main\+\d+ `)
	whole := regexp.MustCompile(`^leaf\+0 by\+\d+ (\S+\+\d+ )+sorter\+\d+ varying\+\d+ main\+\d+ .*_start\+\d+$`)
	const last = ` if (@n++ > 300) { exit(); } }`
	tests := []struct {
		name, program string
		want          *regexp.Regexp
		not           bool
	}{
		{"printed", `uprobe:PROG:leaf { if (@n == 300) { print(dw_ustack()); }` + last, whole, false},
		{"ustack", `uprobe:PROG:leaf { if (@n == 300) { print(ustack()); }` + last, chain, true},
		{"limit", `uprobe:PROG:leaf { if (@n == 300) { print(dw_ustack(2)); }` + last, regexp.MustCompile(`^leaf\+0 by\+\d+$`), false},
		{"key", `uprobe:PROG:leaf { if (@n == 300) { @[dw_ustack()] = 1; }` + last + ` end { for ($kv : @) { print($kv.0); } clear(@); }`, whole, false},
		{"in a loop", `uprobe:PROG:leaf { $i = 0; while ($i < 1) { $i++; if (@n == 300) { print(dw_ustack()); } }` + last, whole, false},
		{"from a system call", `tracepoint:syscalls:sys_enter_clock_nanosleep /pid == PID && @n == 100/ { print(dw_ustack()); exit(); } uprobe:PROG:leaf { @n++ }`,
			regexp.MustCompile(`nanosleep\S* (\S+ )*main\+\d+ .*_start\+\d+$`), false},
	}
	for _, tt := range tests {
		for _, how := range []string{"-c", "-p"} {
			o := Options{Quiet: true, NoWarn: true, For: 20 * time.Second, Config: check.Config{HideDebugInfo: true, NoMapsOnExit: true}}
			var cmd *exec.Cmd // one at a time: the probes are in all processes of the program
			if how == "-c" {
				o.Command = []string{path}
			} else {
				cmd = exec.Command(path)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				o.PID = cmd.Process.Pid
			}
			var out, errs syncBuffer
			o.Source = &syntax.Source{Name: "stdin", Text: strings.NewReplacer("PROG", path, "PID", "cpid").Replace(tt.program)}
			o.Stdout, o.Stderr = &out, &errs
			o.Diags = func(ds []syntax.Diag) {
				for _, d := range ds {
					errs.Write([]byte(d.Error() + "\n"))
				}
			}
			_, err := Run(t.Context(), o)
			if cmd != nil {
				cmd.Process.Kill()
				cmd.Wait()
			}
			got := strings.Join(strings.Fields(out.String()), " ")
			if err != nil || tt.want.MatchString(got) == tt.not {
				t.Errorf("%s %s: %v\n got %q\nwant %v (not: %v)\n%s", tt.name, how, err, got, tt.want, tt.not, errs.String())
			}
		}
	}
}
