package memlock

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTry: what is refused for want of rights is tried again where the limit could be taken away, nothing else is.
func TestTry(t *testing.T) {
	other := errors.New("another")
	for _, tt := range []struct {
		raises bool
		errs   []error // of each time
		want   error
	}{
		{true, []error{nil}, nil},
		{true, []error{other}, other},
		{true, []error{unix.EPERM, nil}, nil},
		{true, []error{unix.EPERM, other}, other},
		{false, []error{unix.EPERM}, unix.EPERM},
	} {
		n, raised := 0, 0
		v, err := try(func() (int, error) { n++; return n, tt.errs[n-1] }, func() bool { raised++; return tt.raises })
		if err != tt.want || n != len(tt.errs) || v != n || raised > 0 != errors.Is(tt.errs[0], unix.EPERM) {
			t.Errorf("%v: %v after %d times, the limit asked for %d times", tt.errs, err, n, raised)
		}
	}
}

// TestRaise: where the limit is gone there is nothing to take away.
func TestRaise(t *testing.T) {
	var was, is unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &was); err != nil {
		t.Fatal(err)
	}
	did := raise()
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &is); err != nil {
		t.Fatal(err)
	}
	if did != (is.Cur == unix.RLIM_INFINITY && was.Cur != unix.RLIM_INFINITY) || !did && is != was {
		t.Errorf("%v: from %+v to %+v", did, was, is)
	}
	if did && raise() {
		t.Error("what is gone was taken away once more")
	}
}
