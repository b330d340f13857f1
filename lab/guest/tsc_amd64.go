package guest

import (
	"math"
	"time"
)

// rdtsc reads the time stamp counter, which is that of an emulated guest, too: QEMU gives it the host's ticks (cpu_get_host_ticks).
func rdtsc() uint64

// tick is a value of the counter and when it was read.
type tick struct {
	tsc uint64
	at  time.Time
}

// readTick reads both at once, as nearly as a few tries give it.
func readTick() (best tick) {
	least := uint64(math.MaxUint64)
	for range 50 {
		before := rdtsc()
		at := time.Now()
		after := rdtsc()
		if took := after - before; took < least {
			least, best = took, tick{before + took/2, at}
		}
	}
	return best
}

// tscKHz says how fast the counter goes, having looked for 50 ms; 0 if it does not go evenly, as where several CPUs have different ones.
// A guest finds it out with a timer of its own, and is wrong by a factor if QEMU does not run meanwhile: its time then flies.
func tscKHz() int {
	var got [2]float64
	last := readTick()
	for i := range got {
		time.Sleep(25 * time.Millisecond)
		now := readTick()
		got[i] = float64(now.tsc-last.tsc) / float64(now.at.Sub(last.at)) * 1e6
		last = now
	}
	if got[0] < 1e5 || got[0] > 1e7 || math.Abs(got[0]-got[1]) > got[0]/1000 {
		return 0
	}
	return int(math.Round((got[0] + got[1]) / 2))
}
