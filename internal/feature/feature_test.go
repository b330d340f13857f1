package feature

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

func TestError(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"errno", Unsupported("kprobe.multi", "BPF_LINK_CREATE", syscall.EOPNOTSUPP), "kprobe.multi not supported: BPF_LINK_CREATE: operation not supported (errno 95)"},
		{"path", Unsupported("BTF", "read vmlinux", &fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}), "BTF not supported: read vmlinux: open /x: no such file or directory (errno 2)"},
		{"no errno", Unsupported("BTF", "parse", errors.New("bad magic")), "BTF not supported: parse: bad magic"},
		{"no error", Unsupported("kprobe", "no tracefs kprobe_events", nil), "kprobe not supported: no tracefs kprobe_events"},
		{"a library's guess", Unsupported("kprobe.multi", "tried it", errors.New("bpf_link_kprobe_multi not supported (requires >= v5.18)")),
			"kprobe.multi not supported: tried it: bpf_link_kprobe_multi not supported"},
		{"bare", Unsupported("kprobe", "", nil), "kprobe not supported"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if wrapped := fmt.Errorf("attach: %w", tt.err); !errors.Is(wrapped, ErrUnsupported) {
				t.Error("is not ErrUnsupported when wrapped")
			}
		})
	}
	if !errors.Is(tests[0].err, syscall.EOPNOTSUPP) {
		t.Error("errno is hidden")
	}
	if errors.Is(syscall.EPERM, ErrUnsupported) || errors.Is(tests[0].err, syscall.EPERM) {
		t.Error("matches what it is not")
	}
	var fe *Error
	if !errors.As(fmt.Errorf("x: %w", tests[1].err), &fe) || fe.Name != "BTF" {
		t.Error("errors.As does not find it")
	}
}
