package xskwhy

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/answers/nic"
)

// seen is a socket that was watched for a second and had 1000 packets, which it read.
func seen(change func(s *Seen)) *Seen {
	s := &Seen{PID: 7, Comm: "strat", Descriptor: 5, For: time.Second, Samples: 500, Redirects: []nic.XSKRedirect{{CPU: 1, N: 1000}}, NetRX: []time.Duration{0, 100 * time.Millisecond}}
	ring := nic.XSKRing{Size: 64, Producer: 64}
	s.First = nic.XSKState{Device: "eth0", Queue: 3, RX: nic.XSKRing{Size: 64}, Fill: ring, Completion: nic.XSKRing{Size: 64}, TX: nic.XSKRing{Size: 64}}
	s.Last = s.First
	s.Last.RX.Producer, s.Last.RX.Consumer, s.Last.Fill.Producer, s.Last.Fill.Consumer = 1000, 1000, 1064, 1000
	change(s)
	return s
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(s *Seen)
		want   []string
		words  string
	}{
		{"nothing", func(*Seen) {}, []string{Fine}, "nothing was lost"},
		{"nobody reads", func(s *Seen) {
			s.Last.RX.Producer, s.Last.RX.Consumer, s.Unread, s.Last.Full = 64, 0, s.For, 936
		}, []string{NotRead}, "strat[7] takes no packets: 64 of 64 entries of its receive ring are used, and for 1s it took none"},
		{"a packet at the last moment is no proof", func(s *Seen) {
			s.Last.RX.Producer, s.Last.RX.Consumer, s.Unread = 1, 0, 2*time.Millisecond
		}, []string{Fine}, ""},
		{"nobody fills", func(s *Seen) {
			s.Last.RX.Producer, s.Last.RX.Consumer, s.Last.Fill = 64, 64, nic.XSKRing{Size: 64, Producer: 64, Consumer: 64, Empty: 936}
			s.Last.Dropped = 936
		}, []string{NotFilled}, "packets find no frame (936 times)"},
		{"fill ring empty in bursts", func(s *Seen) { s.Last.Fill.Empty, s.Last.Dropped, s.NoFrame = 20, 20, 9 }, []string{FillEmpty}, "20 packets found no frame: the fill ring of 64 entries ran empty, so in 9 of 500 looks"},
		{"sleeps, and loses", func(s *Seen) { s.Last.Full, s.Unread = 30, 200*time.Millisecond }, []string{Sleeps}, "30 packets found the receive ring full: strat[7] sleeps by itself while packets wait, up to 200ms"},
		{"sleeps, and loses none", func(s *Seen) { s.Unread = 40 * time.Millisecond }, []string{Sleeps}, "packets are late, none is lost"},
		{"sleeps, and is woken", func(s *Seen) { s.Unread, s.Owner.Wake.Count = 40*time.Millisecond, 900 }, []string{Sleeps}, "leaves packets where they are though they wake it"},
		{"sleeps, with frames that do not suffice", func(s *Seen) { s.Unread, s.Last.Fill.Empty = 40*time.Millisecond, 7 }, []string{Sleeps, FillEmpty}, ""},
		{"no time", func(s *Seen) { s.Last.Full, s.CPU, s.Unread = 30, 950*time.Millisecond, 6*time.Millisecond }, []string{TooSlow}, "runs 95 % of the time and takes 1000 of 1000"},
		{"waits for a CPU", func(s *Seen) {
			s.Unread, s.Owner.Worst, s.Owner.Behind = 40*time.Millisecond, uint64(30*time.Millisecond), "cc1"
		}, []string{WokenLate}, "up to 30ms behind cc1"},
		{"wrong queue", func(s *Seen) {
			s.Redirects = []nic.XSKRedirect{{CPU: 1, Errno: int(syscall.EINVAL), N: 50}}
			s.Last.RX = s.First.RX
		}, []string{WrongQueue}, "50 redirects on eth0 were refused (EINVAL)"},
		{"invalid", func(s *Seen) { s.Last.TX.Invalid = 3 }, []string{Invalid}, "3 descriptors of strat[7] meant nothing"},
		{"not kicked", func(s *Seen) { s.Stuck, s.Last.TX.Producer = 400, 8 }, []string{NotKicked}, "the transmit ring has 8 entries"},
		{"not reaped", func(s *Seen) { s.Last.Completion.Producer, s.Last.TX.Producer = 64, 8 }, []string{NotReaped}, "takes its 64 frames back"},
		{"softirq", func(s *Seen) { s.NetRX[1] = 900 * time.Millisecond }, []string{Softirq}, "CPU 1, which feeds it, spent 90 % of its time in NET_RX"},
		{"nothing comes", func(s *Seen) { s.Redirects, s.Last.RX = nil, s.First.RX }, []string{Nothing}, "nothing was redirected into it on eth0"},
	} {
		fs := seen(tt.change).Judge()
		var got []string
		for _, f := range fs {
			got = append(got, f.Why)
			if f.Turn == "" && f.Why != Fine {
				t.Errorf("%s: %s: nothing to turn", tt.name, f.Why)
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" || !strings.Contains(fs[0].Words, tt.words) {
			t.Errorf("%s: %s\n%+v", tt.name, d, fs)
		}
	}
}

// TestAdd: how long packets lie unread begins anew with each that is taken.
func TestAdd(t *testing.T) {
	var s Seen
	start := time.Unix(1000, 0)
	for i, rx := range []nic.XSKRing{{Size: 4}, {Size: 4, Producer: 1}, {Size: 4, Producer: 2}, {Size: 4, Producer: 4}, {Size: 4, Producer: 4, Consumer: 1}, {Size: 4, Producer: 5, Consumer: 1}, {Size: 4, Producer: 5, Consumer: 5}} {
		s.add(nic.XSKState{RX: rx, Fill: nic.XSKRing{Size: 4}}, start.Add(time.Duration(i)*time.Second))
	}
	if s.Samples != 7 || s.NoFrame != 7 || s.Full != 2 || s.Unread != 2*time.Second || !s.unreadSince.IsZero() {
		t.Errorf("%+v", s)
	}
}

func TestCPUTime(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]time.Duration{
		"7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20": 1750 * time.Millisecond,
		"7 (a) S 1": 0,
		"":          0,
	} {
		if err := os.WriteFile(filepath.Join(root, "7/stat"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := cpuTime(root, 7); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if cpuTime(root, 8) != 0 {
		t.Error("of a process that is not there")
	}
}
