package traffic_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/attach"
	"github.com/fathom-trace/fathom/lab/topology"
)

var guests = ktest.Config{Modules: []string{"veth"}}

// victim is set in a process that TestKill kills: the device it is to hold.
const victim = "FATHOM_XSK_VICTIM"

func TestMain(m *testing.M) {
	if dev := os.Getenv(victim); dev != "" {
		hold(dev)
		return
	}
	if what := os.Getenv(patient); what != "" {
		fmt.Fprintln(os.Stderr, sicken(what))
		os.Exit(1)
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// pair makes two hosts on a veth pair, and says how tests name their devices.
func pair(t *testing.T) (p *topology.Pair, a, b xsk.Device) {
	t.Helper()
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	p, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	at := func(h topology.Host) xsk.Device {
		return xsk.Device{Name: h.Dev, NetNS: fmt.Sprintf("/proc/self/fd/%d", h.FD())}
	}
	return p, at(p.A), at(p.B)
}

func open(t *testing.T, c traffic.Config) *traffic.Session {
	t.Helper()
	if c.Queues == nil {
		c.Queues = []int{0}
	}
	s, err := traffic.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// toPort is a rule for datagrams to a port.
func toPort(t *testing.T, port uint16) []steer.Rule {
	t.Helper()
	r, err := steer.Flow{Proto: "udp", DstPort: steer.Ports{First: port}}.Rule(steer.ToSocket)
	if err != nil {
		t.Fatal(err)
	}
	return []steer.Rule{r}
}

func template(t *testing.T, a, b xsk.Device, size int) *traffic.Template {
	t.Helper()
	la, err := traffic.Of(a)
	if err != nil {
		t.Fatal(err)
	}
	lb, err := traffic.Of(b)
	if err != nil {
		t.Fatal(err)
	}
	tm, err := traffic.NewTemplate(traffic.Flow{SrcMAC: la.MAC, DstMAC: lb.MAC, Src: netip.AddrPortFrom(la.Net.Addr(), 4096), Dst: netip.AddrPortFrom(lb.Net.Addr(), 4096)}, size)
	if err != nil {
		t.Fatal(err)
	}
	return tm
}

// frames is how many go through tx, l2fwd and rx.
func frames() uint64 {
	switch {
	case ktest.Soak() && !ktest.InGuest():
		return 100_000_000
	case ktest.InGuest():
		return 5_000
	}
	return 1_000_000
}

// TestFramesAccounted sends frames through tx, l2fwd and rx: none is corrupt or there twice, and those that did not come are as many as
// the kernel counted.
func TestFramesAccounted(t *testing.T) {
	_, a, b := pair(t)
	left := open(t, traffic.Config{Device: a, Rules: toPort(t, 4096), Queue: xsk.Options{Wait: xsk.SpinYield}})
	right := open(t, traffic.Config{Device: b, Rules: toPort(t, 4096), Queue: xsk.Options{Wait: xsk.SpinYield}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- traffic.Forward(ctx, right.Queues[0], right.Queues[0], 64, xsk.SpinYield, traffic.Back)
	}()
	var acc traffic.Account
	q, n := left.Queues[0], frames()
	sent := exchange(t, q, right.Queues[0], template(t, a, b, 60), n, &acc)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	ls, rs := stats(t, q), stats(t, right.Queues[0])
	dropped := missing(t, q) + missing(t, right.Queues[0])
	if acc.Corrupt != 0 || acc.Twice != 0 || acc.Foreign != 0 || sent != n || acc.Packets+dropped != n {
		t.Errorf("of %d sent %d came and %d are counted as dropped: %+v; left %+v; right %+v", sent, acc.Packets, dropped, acc, ls, rs)
	}
	if rs.RxPackets != rs.TxPackets || rs.TxCompleted != rs.TxPackets || ls.NotOwned+rs.NotOwned != 0 {
		t.Errorf("forwarded: %+v", rs)
	}
	t.Logf("%d frames there and back, %d dropped and counted", acc.Packets, dropped)
}

// missing is what was counted of packets that did not come to a device: by the sockets that should have had them (one for which there
// was no frame is in RxDropped), and of those it sent by the device.
func missing(t *testing.T, q *xsk.Queue, more ...*xsk.Queue) uint64 {
	t.Helper()
	n, err := traffic.Dropped(q.Device())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range append(more, q) {
		s := stats(t, q)
		n += s.Kernel.RxDropped + s.Kernel.RxRingFull
	}
	return n
}

func stats(t *testing.T, q *xsk.Queue) xsk.Stats {
	t.Helper()
	s, err := q.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inFlight is how many frames may be between two queues: less than the ring of veth takes, so that few are dropped.
const inFlight = 192

// stuck is when nothing will come any more, however slow the machine is.
const stuck = 2 * time.Minute

// exchange sends n frames and takes what comes back, until all have come or are counted as dropped.
func exchange(t *testing.T, q, far *xsk.Queue, tm *traffic.Template, n uint64, acc *traffic.Account) (sent uint64) {
	t.Helper()
	var out, in [64]xsk.Frame
	var gone uint64
	last := time.Now()
	for idle := 0; acc.Packets+gone < n; {
		if sent < n && sent-acc.Packets-gone < inFlight {
			k := q.Alloc(out[:min(n-sent, uint64(len(out)))])
			for i := range out[:k] {
				out[i].SetLen(tm.Len())
				tm.Write(out[i].Bytes(), sent+uint64(i))
			}
			s, err := q.Send(out[:k])
			if err != nil {
				t.Fatal(err)
			}
			q.Free(out[s:k])
			sent += uint64(s)
		}
		r, err := q.Recv(in[:])
		if err != nil {
			t.Fatal(err)
		}
		for i := range in[:r] {
			acc.Note(in[i].Bytes())
		}
		q.Free(in[:r])
		if r > 0 {
			last = time.Now()
			continue
		}
		if idle++; idle%1024 == 0 {
			if time.Since(last) > stuck {
				t.Fatalf("of %d sent %d came and %d are counted as dropped, and nothing moves: %+v; %+v", sent, acc.Packets, gone, stats(t, q), stats(t, far))
			}
			gone = missing(t, q) + missing(t, far)
		}
		if err := q.Kick(); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	return sent
}

// TestForeign: a program that is there is named, and stays.
func TestForeign(t *testing.T) {
	p, a, _ := pair(t)
	var other *attach.Attached
	if err := p.A.Do(func() (err error) {
		other, err = attach.XDP("va", "other", attach.XDPPass, false)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, m := range []steer.Mode{steer.Auto, steer.Native, steer.Generic} {
		_, err := steer.Attach(a, toPort(t, 4096), steer.Options{Mode: m})
		var h *held.Error
		if !errors.As(err, &h) || len(h.Programs) != 1 {
			t.Fatalf("%v: %v", m, err)
		}
		if g := h.Programs[0]; g.Name != "other" || g.ID == 0 || g.Tag == "" || g.Link == 0 || len(g.Owners) != 1 || !strings.Contains(g.Owners[0], fmt.Sprintf("[%d]", os.Getpid())) {
			t.Errorf("%v: %+v", m, g)
		}
		if len(h.Try()) < 2 {
			t.Errorf("ways on: %q", h.Try())
		}
	}
	if got := programs(t, p.A); len(got) != 1 || got[0].Name != "other" {
		t.Errorf("on the device: %+v", got)
	}
}

func programs(t *testing.T, h topology.Host) (out []held.Program) {
	t.Helper()
	if err := h.Do(func() error {
		ifi, err := net.InterfaceByName(h.Dev)
		if err == nil {
			out, err = held.On(ifi.Index)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// left gives the programs that stay on a device. Whoever looks at all links of the machine, as other tests do, has each of them for a
// moment.
func left(t *testing.T, h topology.Host) (got []held.Program) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got = programs(t, h); len(got) == 0 {
			return nil
		}
	}
	return got
}

// hold takes a device until the process is killed.
func hold(dev string) {
	name, ns, _ := strings.Cut(dev, "@")
	r, err := steer.Flow{Proto: "udp", DstPort: steer.Ports{First: 4096}}.Rule(steer.ToSocket)
	if err == nil {
		_, err = traffic.Open(context.Background(), traffic.Config{Device: xsk.Device{Name: name, NetNS: ns}, Queues: []int{0}, Rules: []steer.Rule{r}})
	}
	fmt.Println("held", err)
	for {
		time.Sleep(time.Hour)
	}
}

// TestKill: a process that is killed leaves no program, and its queue can be bound again.
func TestKill(t *testing.T) {
	p, _, b := pair(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victim+"="+fmt.Sprintf("vb@/proc/%d/fd/%d", os.Getpid(), p.B.FD()))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var said [64]byte
	n, _ := out.Read(said[:])
	if got := string(said[:n]); got != "held <nil>\n" {
		t.Error(got)
	}
	if got := programs(t, p.B); len(got) != 1 || len(got[0].Owners) != 1 || !strings.HasSuffix(got[0].Owners[0], fmt.Sprintf("[%d]", cmd.Process.Pid)) {
		t.Errorf("while it lives: %+v", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if got := left(t, p.B); len(got) != 0 {
		t.Errorf("after it was killed: %+v", got)
	}
	open(t, traffic.Config{Device: b, Rules: toPort(t, 4096), Queue: xsk.Options{RetryFor: time.Minute}})
}

// kills is how often TestKillAnytime kills.
func kills() int {
	n, err := strconv.Atoi(os.Getenv("FATHOM_KILLS"))
	switch {
	case err == nil:
		return n
	case ktest.InGuest():
		return 1
	}
	return 15
}

// TestKillAnytime kills a process at some moment while it opens, attaches, or holds: whatever it had done is undone.
func TestKillAnytime(t *testing.T) {
	p, _, _ := pair(t)
	r := rand.New(rand.NewPCG(9, 9))
	for i := range kills() {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), victim+"="+fmt.Sprintf("vb@/proc/%d/fd/%d", os.Getpid(), p.B.FD()))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond) // any moment will do
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if got := left(t, p.B); len(got) != 0 {
			t.Fatalf("kill %d leaves %+v", i, got)
		}
	}
}

// TestBusy: a queue that another socket has is refused in words, after the time for trying.
func TestBusy(t *testing.T) {
	_, a, _ := pair(t)
	open(t, traffic.Config{Device: a, NoProgram: true})
	_, err := traffic.Open(t.Context(), traffic.Config{Device: a, Queues: []int{0}, NoProgram: true, Queue: xsk.Options{RetryFor: time.Millisecond}})
	var x *xsk.Error
	if !errors.As(err, &x) || !errors.Is(err, unix.EBUSY) || !strings.Contains(x.Why, "another AF_XDP socket") {
		t.Error(err)
	}
	if _, err := traffic.Open(t.Context(), traffic.Config{Device: a, Queues: []int{4000}, NoProgram: true}); !errors.As(err, &x) || !strings.Contains(x.Why, "no queue of this number") {
		t.Error(err)
	}
	if _, err := traffic.Open(t.Context(), traffic.Config{Device: a, Queues: []int{0}, NoProgram: true, Queue: xsk.Options{Copying: xsk.ZeroCopy, RetryFor: time.Millisecond}}); !errors.As(err, &x) || x.Why == "" {
		t.Error(err)
	}
}

// TestReopen: a queue that was closed can be bound at once, again and again: the kernel is given time to take it apart.
func TestReopen(t *testing.T) {
	_, a, _ := pair(t)
	for range 5 {
		s, err := traffic.Open(t.Context(), traffic.Config{Device: a, Queues: []int{0}, Rules: toPort(t, 4096), Queue: xsk.Options{RetryFor: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
