package script

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// TestSession: a kprobe and a kretprobe of the same functions are one program where the kernel has sessions, and see what
// two programs see: as many returns as entries of the same thread, the result, and whose it is.
func TestSession(t *testing.T) {
	ktest.Need(t, ktest.KprobeSession, ktest.BTF, ktest.Ringbuf)
	tests := []struct {
		name, src string
		session   bool
	}{
		{"one function", `kprobe:vfs_read /comm == "session"/ { @entries++; @at[tid] = arg2; } kretprobe:vfs_read /@at[tid]/ { @returns++; @f[func] = count(); if (retval <= @at[tid]) { @right++; } delete(@at, tid); }`, true},
		{"many", `kprobe:vfs_re* /comm == "session"/ { @entries++; @at[tid] = 1 << 20; } kretprobe:vfs_re* /@at[tid]/ { @returns++; @f[func] = count(); if (retval <= @at[tid]) { @right++; } delete(@at, tid); }`, true},
		{"a loop in each half", `kprobe:vfs_read /comm == "session"/ { $n = 0; while ($n < 5) { $n++; } @entries += $n / 5; @at[tid] = arg2; } kretprobe:vfs_read /@at[tid]/ { $n = 0; while ($n < 3) { $n++; } @returns += $n / 3; @right++; delete(@at, tid); }`, true},
		{"prototypes that differ", `kprobe:vfs_re* /comm == "session"/ { @entries++; @at[tid] = arg2; } kretprobe:vfs_re* /@at[tid]/ { @returns++; @right++; delete(@at, tid); }`, false}, // arg2 is of several types: several programs
		{"different functions", `kprobe:vfs_read /comm == "session"/ { @entries++; @returns++; @right++; } kretprobe:vfs_write { @w++; }`, false},
		{"two returns", `kprobe:vfs_read /comm == "session"/ { @entries++; @returns++; @right++; } kretprobe:vfs_read { @x++; } kretprobe:vfs_read { @y++; }`, false},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			var out, errs syncBuffer
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := Run(ctx, Options{Source: &syntax.Source{Name: "stdin", Text: tt.src}, Stdout: &out, Stderr: &errs, Verbose: true,
					Diags: func(ds []syntax.Diag) {
						for _, d := range ds {
							errs.Write([]byte(d.Error() + "\n"))
						}
					}})
				done <- err
			}()
			for !strings.Contains(errs.String(), "vfs_re") && ctx.Err() == nil && len(done) == 0 { // the plans: attached
				time.Sleep(20 * time.Millisecond)
			}
			as("session", func() {
				for range 10 {
					readFile()
				}
			})
			cancel()
			if err := <-done; err != nil {
				t.Fatalf("%v\n%s", err, errs.String())
			}
			if got := strings.Contains(errs.String(), "kprobe.session"); got != tt.session {
				t.Errorf("one program: %v, want %v\n%s", got, tt.session, errs.String())
			}
			if strings.Contains(tt.src, "@f") && !strings.Contains(out.String(), "@f[vfs_read]: ") {
				t.Errorf("the return does not know whose it is:\n%s", out.String())
			}
			for _, m := range []string{"entries", "returns", "right"} {
				f := regexp.MustCompile(`@` + m + `: (\d+)`).FindStringSubmatch(out.String())
				if f == nil {
					t.Errorf("no @%s\n%s", m, out.String())
				} else if n, _ := strconv.Atoi(f[1]); n < 10 {
					t.Errorf("@%s is %d\n%s\n%s", m, n, out.String(), errs.String())
				}
			}
		})
	}
}
