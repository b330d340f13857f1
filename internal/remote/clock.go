package remote

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is what is known of a host's clock.
type Clock struct {
	// Offset is what to add to ns since boot there to have ns since boot here; Error is how far off it may be.
	Offset, Error int64
	// Real is by how much its date is ahead of ours, known as well as Offset.
	Real int64
	// Trips is how many answers it was made of.
	Trips int
}

// Here gives a moment there, in ns since boot, by our clock.
func (c Clock) Here(there uint64) int64 { return int64(there) + c.Offset }

// String says how the dates differ.
func (c Clock) String() string {
	d := time.Duration(c.Real)
	where := "ahead of ours"
	if d < 0 {
		d, where = -d, "behind ours"
	}
	return fmt.Sprintf("its clock is %v %s, ± %v", round(d), where, round(time.Duration(c.Error)))
}

func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(100 * time.Nanosecond)
}

// estimate makes a Clock out of pings and their answers.
type estimate struct {
	clock Clock
	best  int64 // the shortest way there and back so far
	at    int64 // when that was
}

// now gives the clock as known at a moment: what is old is less certain.
func (e *estimate) now(now int64) Clock {
	c := e.clock
	c.Error = e.best/2 + 1 + int64(float64(now-e.at)*drift)
	return c
}

// drift is how much two clocks may part from each other: 100 ppm, more than what NTP would let pass, in ns for each ns.
const drift = 1e-4

// add takes an answer that arrived here at a moment. The way there and the way back may take differently long: the middle
// is wrong by half of both at most. An older answer that was quicker counts as worse by what clocks may have parted since.
func (e *estimate) add(p pong, now, real int64) {
	trip := now - int64(p.Sent) - int64(p.Answered-p.Received)
	if trip < 0 {
		return // such a clock went backwards
	}
	e.clock.Trips++
	if e.clock.Trips > 1 && trip/2 >= e.best/2+int64(float64(now-e.at)*drift) {
		return
	}
	e.best, e.at = trip, now
	e.clock.Offset = (int64(p.Sent) - int64(p.Received) + now - int64(p.Answered)) / 2
	// When it answered, our date was that of now less half the way.
	e.clock.Real = int64(p.Real) - (real - trip/2)
}

func bootTime() int64 { return readClock(unix.CLOCK_BOOTTIME) }

func realTime() int64 { return readClock(unix.CLOCK_REALTIME) }

func readClock(id int32) int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts) // these clocks are always there
	return ts.Nano()
}

// BootToReal is what to add to ns since boot here to have ns since 1970.
func BootToReal() int64 { return realTime() - bootTime() }
