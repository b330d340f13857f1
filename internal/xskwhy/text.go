package xskwhy

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/sysno"
)

// Place is what is known of a socket's device beside it.
type Place struct {
	NetNS    string
	Programs []string // of XDP on it
}

// WriteText writes what was seen of a socket, the verdict first.
func (s *Seen) WriteText(w io.Writer, at Place) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-8s  %s\n", label, fmt.Sprintf(format, args...))
	}
	mode := "copied"
	if s.First.ZeroCopy {
		mode = "not copied"
	}
	in := ""
	if at.NetNS != "" {
		in = " in " + at.NetNS
	}
	fmt.Fprintf(&b, "%s%s, queue %d: AF_XDP socket of %s[%d], packets are %s\n", s.First.Device, in, s.First.Queue, s.Comm, s.PID, mode)
	for _, f := range s.Judge() {
		line("why", "%s", f.Words)
		if f.Turn != "" {
			line("turn", "%s", f.Turn)
		}
	}
	arrived, failed, cpus := s.redirected()
	sec := max(s.For.Seconds(), 1e-9)
	text := fmt.Sprintf("%d arrived (%.0f a second), %d were read", s.Received(), float64(s.Received())/sec, s.Read())
	if n := s.Sent(); n > 0 {
		text += fmt.Sprintf(", %d sent", n)
	}
	text += fmt.Sprintf("; XDP redirected %d on the device", arrived)
	for _, e := range slices.Sorted(maps.Keys(failed)) {
		text += fmt.Sprintf(", and failed to %d times (%v)", failed[e], syscall.Errno(e))
	}
	line("packets", "%s", text)
	l := s.Lost()
	line("lost", "%d times no frame was in the fill ring, %d packets found the receive ring full, %d were dropped in all but those; %d descriptors meant nothing", l.NoFrame, l.Full, l.Dropped, l.Invalid)
	var rings []string
	for _, r := range s.rings() {
		if r.Size > 0 {
			rings = append(rings, fmt.Sprintf("%s %d of %d", r.name, r.Used(), r.Size))
		}
	}
	line("rings", "%s; of %d looks the fill ring was empty in %d, the receive ring full in %d", strings.Join(rings, ", "), s.Samples, s.NoFrame, s.Full)
	line("unread", "%v at most, %.0f %% of the time in all", s.Unread.Round(every), 100*part(s.AllUnread, s.For))
	o := &s.Owner
	line("owner", "%.0f %% of a CPU; system calls: %s", 100*s.share(), s.calls())
	if o.Wake.Count > 0 {
		line("wakes", "%d by packets, then until it ran p50 %v, p99 %v, at most %v behind %s; %d by other things", o.Wake.Count, time.Duration(o.Wake.Quantile(.5)),
			time.Duration(o.Wake.Quantile(.99)), time.Duration(o.Worst), o.Behind, o.Other)
	} else {
		line("wakes", "none by packets, %d by other things", o.Other)
	}
	for _, c := range cpus {
		if c < len(s.NetRX) {
			line(fmt.Sprintf("CPU %d", c), "feeds it, %.1f %% of the time in NET_RX", 100*part(s.NetRX[c], s.For))
		}
	}
	for _, p := range at.Programs {
		line("xdp", "%s", p)
	}
	if s.Gone {
		line("gone", "its process ended meanwhile")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

type namedRing struct {
	name string
	nic.XSKRing
}

func (s *Seen) rings() []namedRing {
	l := &s.Last
	return []namedRing{{"receive", l.RX}, {"fill", l.Fill}, {"transmit", l.TX}, {"completion", l.Completion}}
}

// mostCalls is how many system calls are named.
const mostCalls = 5

// calls names the owner's system calls, the most frequent first.
func (s *Seen) calls() string {
	ids := slices.SortedFunc(maps.Keys(s.Owner.Calls), func(a, b int) int {
		if x, y := s.Owner.Calls[a], s.Owner.Calls[b]; x != y {
			return int(min(max(int64(y)-int64(x), -1), 1))
		}
		return a - b
	})
	var out []string
	for i, id := range ids {
		if i == mostCalls {
			out = append(out, fmt.Sprintf("%d others", len(ids)-i))
			break
		}
		out = append(out, fmt.Sprintf("%s %d", sysno.Name(runtime.GOARCH, uint64(id)), s.Owner.Calls[id]))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// ringJSON is a ring, as it was at the end.
type ringJSON struct {
	Used uint32 `json:"used"`
	Size uint32 `json:"size"`
}

// seenJSON is a socket.
type seenJSON struct {
	Type       string              `json:"type"` // "xsk"
	NetNS      string              `json:"netns,omitempty"`
	Device     string              `json:"dev"`
	Queue      int                 `json:"queue"`
	PID        int                 `json:"pid"`
	Comm       string              `json:"comm"`
	ForNS      int64               `json:"for_ns"`
	ZeroCopy   bool                `json:"zero_copy"`
	Verdict    string              `json:"verdict"`
	Findings   []Finding           `json:"findings"`
	Received   uint32              `json:"received"`
	Read       uint32              `json:"read"`
	Filled     uint32              `json:"filled"`
	Sent       uint32              `json:"sent"`
	Lost       Lost                `json:"lost"`
	Redirected uint64              `json:"redirected"`
	Failed     map[string]uint64   `json:"redirect_errors,omitempty"`
	Rings      map[string]ringJSON `json:"rings"`
	Looks      int                 `json:"looks"`
	LooksEmpty int                 `json:"looks_fill_empty"`
	LooksFull  int                 `json:"looks_rx_full"`
	UnreadNS   int64               `json:"unread_max_ns"`
	CPU        float64             `json:"cpu_share"`
	Woken      uint64              `json:"woken_by_packets"`
	WokenElse  uint64              `json:"woken_by_others"`
	WakeP50NS  uint64              `json:"wake_p50_ns"`
	WakeP99NS  uint64              `json:"wake_p99_ns"`
	WakeMaxNS  uint64              `json:"wake_max_ns"`
	Calls      map[string]uint64   `json:"calls"`
	NetRX      map[string]float64  `json:"net_rx_share"` // by CPU that feeds it
	XDP        []string            `json:"xdp,omitempty"`
}

// WriteJSON writes what was seen of a socket as a line.
func (s *Seen) WriteJSON(w io.Writer, at Place) error {
	arrived, failed, cpus := s.redirected()
	fs := s.Judge()
	j := seenJSON{"xsk", at.NetNS, s.First.Device, s.First.Queue, s.PID, s.Comm, int64(s.For), s.First.ZeroCopy, fs[0].Why, fs, s.Received(), s.Read(), s.Filled(), s.Sent(), s.Lost(), arrived,
		map[string]uint64{}, map[string]ringJSON{}, s.Samples, s.NoFrame, s.Full, int64(s.Unread), s.share(), s.Owner.Wake.Count, s.Owner.Other,
		s.Owner.Wake.Quantile(.5), s.Owner.Wake.Quantile(.99), s.Owner.Worst, map[string]uint64{}, map[string]float64{}, at.Programs}
	for e, n := range failed {
		j.Failed[syscall.Errno(e).Error()] = n
	}
	for _, r := range s.rings() {
		j.Rings[r.name] = ringJSON{r.Used(), r.Size}
	}
	for id, n := range s.Owner.Calls {
		j.Calls[sysno.Name(runtime.GOARCH, uint64(id))] += n
	}
	for _, c := range cpus {
		if c < len(s.NetRX) {
			j.NetRX[fmt.Sprint(c)] = part(s.NetRX[c], s.For)
		}
	}
	return jsonl.Write(w, j)
}
