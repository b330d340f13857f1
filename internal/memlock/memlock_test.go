package memlock

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTry: what is refused for want of rights is tried again where the limit could be raised, nothing else is.
func TestTry(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &was); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &was); err != nil {
			t.Error(err)
		}
	}()
	other := errors.New("another")
	for _, tt := range []struct {
		limit uint64
		errs  []error // of each time
		want  error
	}{
		{1 << 16, []error{nil}, nil},
		{1 << 16, []error{other}, other},
		{1 << 16, []error{unix.EPERM, nil}, nil},
		{1 << 16, []error{unix.EPERM, other}, other},
		{unix.RLIM_INFINITY, []error{unix.EPERM}, unix.EPERM},
	} {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: tt.limit, Max: unix.RLIM_INFINITY}); err != nil {
			t.Skip(err) // it takes CAP_SYS_RESOURCE
		}
		n := 0
		_, err := Try(func() (int, error) { n++; return n, tt.errs[n-1] })
		if err != tt.want || n != len(tt.errs) {
			t.Errorf("limit %d: %v after %d times, want %v after %d", tt.limit, err, n, tt.want, len(tt.errs))
		}
	}
}
