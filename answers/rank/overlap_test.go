package rank

import (
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestOverlap: as many are inside a function that sleeps as threads sleep in it.
func TestOverlap(t *testing.T) {
	p := here(t)
	ktest.Need(t, ktest.Kprobe)
	c, err := NewOverlap("do_nanosleep", p.world, runtime.NumCPU())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Begin(); err != nil {
		t.Fatal(err)
	}
	const threads, others = 8, 20 // the Go runtimes of this process and of the guest's init sleep there, too
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			for range 3 {
				ts := unix.NsecToTimespec(int64(200 * time.Millisecond))
				unix.Nanosleep(&ts, nil)
			}
		})
	}
	wg.Wait()
	if err := c.End(); err != nil {
		t.Fatal(err)
	}
	tab, err := c.Table()
	if err != nil {
		t.Fatal(err)
	}
	tab.Sort(tab.Order...)
	if len(tab.Rows) == 0 || tab.Lost() != 0 {
		t.Fatalf("%+v", tab)
	}
	most, err := strconv.Atoi(tab.Rows[0].Keys[0].Text)
	if err != nil || most < threads || most > threads+others || tab.Hits < 3*threads {
		t.Errorf("%d at once at most, %d calls: %+v", most, tab.Hits, tab.Rows)
	}
}
