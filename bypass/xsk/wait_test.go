package xsk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPolled: only a socket on which Go's netpoller waits is known to an epoll instance; one that is looked at costs the kernel nothing
// more, and does not block either way.
func TestPolled(t *testing.T) {
	for how := range Wait(len(waits)) {
		t.Run(how.String(), func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fds[1])
			s, err := NewSleeper(fds[0], "socket", how, func(bool) bool { return false }, nil, func() error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got, want := registered(t, fds[0]), how == Netpoll; got != want {
				t.Errorf("an epoll instance knows the socket: %t, want %t", got, want)
			}
			if _, err := unix.Read(fds[0], make([]byte, 1)); err != unix.EAGAIN {
				t.Errorf("reading gives %v, want %v", err, unix.EAGAIN)
			}
		})
	}
}

// registered says if one of this process's epoll instances watches a descriptor (proc_pid_fdinfo(5)).
func registered(t *testing.T, fd int) bool {
	t.Helper()
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range infos {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // that of the folder itself
		}
		for line := range strings.Lines(string(b)) {
			var n int
			if _, err := fmt.Sscanf(line, "tfd: %d", &n); err == nil && n == fd {
				return true
			}
		}
	}
	return false
}

// TestLinger: who waits by the netpoller looks for a while before sleeping, if the last packet came that fast, and only then.
func TestLinger(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	var s *Sleeper
	var looks int
	var send func() // at the first look
	look := func(bool) bool {
		if looks++; looks == 1 {
			send()
		}
		_, err := unix.Read(fds[0], make([]byte, 1))
		return err == nil
	}
	if s, err = NewSleeper(fds[0], "socket", Netpoll, look, nil, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// after waits for a byte that is sent after a while, and says how often was looked for it.
	after := func(d time.Duration) int {
		t.Helper()
		looks = 0
		write := func() { _, _ = unix.Write(fds[1], []byte("x")) } // the socket has room
		if send = write; d > 0 {
			send = func() { time.AfterFunc(d, write) }
		}
		if err := s.Park(t.Context()); err != nil {
			t.Fatal(err)
		}
		return looks
	}
	const slow = 5 * time.Millisecond
	// asleep waits long, and has it sleep at once.
	asleep := func(what string) {
		t.Helper()
		if n := after(slow); n > 4 {
			t.Errorf("%s: %d looks", what, n)
		}
		if s.brisk > 0 {
			t.Errorf("%s: what came slowly is taken for fast", what)
		}
	}
	fast := func() {
		t.Helper()
		for tries := 0; s.brisk < lingerAfter; tries++ { // this machine may do something else for 50 µs
			if after(0); tries == 10000 {
				t.Fatal("what was there at once is never taken for fast")
			}
		}
		s.slept = time.Now()
	}
	for range 3 {
		asleep("what comes seldom")
	}
	fast()
	if n := after(slow); n < looksPerYield {
		t.Errorf("after what came fast only %d looks", n)
	}
	asleep("after looking in vain")
	fast()
	s.Calm()
	asleep("a stream")
	fast()
	s.slept = time.Now().Add(-lingerMost)
	asleep("awake for long")
}
