package guest

import (
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ringSize is how much of the console is kept.
const ringSize = 64 << 10

// ring keeps the end of what is written to it, and passes everything on.
type ring struct {
	tee  io.Writer    // may be nil
	last atomic.Int64 // time of the last write, Unix ns

	mu  sync.Mutex
	buf []byte // up to twice ringSize, so that moving is rare
}

func newRing(tee io.Writer) *ring { return &ring{tee: tee} }

// Write never fails: a reader that went away must not stop the guest.
func (r *ring) Write(p []byte) (int, error) {
	r.last.Store(time.Now().UnixNano())
	r.mu.Lock()
	r.buf = append(r.buf, p...)
	if over := len(r.buf) - ringSize; over >= ringSize {
		r.buf = append(r.buf[:0], r.buf[over:]...)
	}
	r.mu.Unlock()
	if r.tee != nil {
		r.tee.Write(p)
	}
	return len(p), nil
}

// String is the last 64 KiB.
func (r *ring) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.buf[max(0, len(r.buf)-ringSize):])
}

// panicText is what a dying kernel says first (kernel/panic.c, arch/x86/kernel/{dumpstack,traps}.c).
var panicText = regexp.MustCompile(`(?m)Kernel panic - not syncing[^\r\n]*`)

// panicLine finds the kernel's last words in a console; "" if there are none.
func panicLine(console string) string { return strings.TrimSpace(panicText.FindString(console)) }
