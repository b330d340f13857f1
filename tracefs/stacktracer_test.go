package tracefs

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/bin"
)

const stackText = `        Depth    Size   Location    (3 entries)
        -----    ----   --------
  0)     3616     176   rcu_read_unlock_sched+0x0/0x30
  1)     3440      48   ext4_map_blocks+0x1a1/0x5b0 [ext4]
 10)       96      96   entry_SYSCALL_64_after_hwframe+0x64/0xce
`

func TestParseStackTrace(t *testing.T) {
	got, err := ParseStackTrace([]byte(stackText))
	want := []StackFrame{{3616, 176, "rcu_read_unlock_sched+0x0/0x30"}, {3440, 48, "ext4_map_blocks+0x1a1/0x5b0 [ext4]"}, {96, 96, "entry_SYSCALL_64_after_hwframe+0x64/0xce"}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	off := "        Depth    Size   Location    (0 entries)\n        -----    ----   --------\n#\n#  Stack tracer disabled\n#\n# To enable the stack tracer, either add 'stacktrace' to the\n# kernel command line\n# or 'echo 1 > /proc/sys/kernel/stack_tracer_enabled'\n#\n"
	if got, err := ParseStackTrace([]byte(off)); err != nil || got != nil {
		t.Error(got, err)
	}
	var bad *bin.FormatError
	if _, err := ParseStackTrace([]byte(" 0) x 1 f+0x1/0x2\n")); !errors.As(err, &bad) {
		t.Error(err)
	}
}

func FuzzStackTrace(f *testing.F) {
	f.Add([]byte(stackText))
	f.Add([]byte(" 0) x 1 f+0x1/0x2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, _ := ParseStackTrace(b); len(got) > len(b) {
			t.Errorf("%d frames out of %d bytes", len(got), len(b))
		}
	})
}
