package netstate

// Diff says which counters moved from before to after, and by how much. A counter that came with a device or rule counts
// from 0; one that went with them is left out. Gauges (Tcp.CurrEstab) may go down.
func Diff(before, after *State) map[string]int64 {
	out := map[string]int64{}
	for name, n := range after.Counters {
		if d := int64(n - before.Counters[name]); d != 0 {
			out[name] = d
		}
	}
	return out
}
