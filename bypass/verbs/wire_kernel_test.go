package verbs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/verbs"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
)

// oracle is libibverbs' example, whose driver for rxe is a file that it looks for.
const oracle = "ibv_rc_pingpong"

// pingpongFiles are what a guest needs for it; none if it is not here.
func pingpongFiles() (files []guest.File, err error) {
	path, err := exec.LookPath(oracle)
	if err != nil {
		return nil, nil
	}
	if files, err = guest.Program(path); err != nil {
		return nil, err
	}
	drivers, err := filepath.Glob("/usr/lib/*/libibverbs/librxe-rdmav*.so")
	if err != nil || len(drivers) == 0 {
		return nil, fmt.Errorf("%s is here without the driver for rxe: %w", oracle, err)
	}
	for _, name := range append(drivers, "/etc/libibverbs.d/rxe.driver") {
		files = append(files, guest.File{Name: name, Path: name})
	}
	return files, nil
}

// wire makes two RDMA devices, rda and rdb, at the ends of a cable. rxe of these kernels works in the first network namespace only,
// where both addresses are at home, so packets between them would never leave: rules send them out of the device they belong to.
func wire(t *testing.T) {
	t.Helper()
	ktest.NeedGuest(t, ktest.Modules)
	a := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wirea"}, PeerName: "wireb"}
	address(t, a, "10.8.0.1/24")
	b, err := netlink.LinkByName("wireb")
	if err != nil {
		t.Fatal(err)
	}
	up(t, b, "10.8.0.2/24")
	for _, dev := range []string{"all", "wirea", "wireb"} {
		for name, value := range map[string]string{"accept_local": "1", "rp_filter": "0"} {
			set(t, filepath.Join("/proc/sys/net/ipv4/conf", dev, name), value)
		}
	}
	local := netlink.NewRule()
	local.Family, local.Table, local.Priority = unix.AF_INET, unix.RT_TABLE_LOCAL, 1000
	rule(t, local)
	for i, l := range []netlink.Link{a, b} {
		out := netlink.NewRule()
		out.Family, out.Table, out.Priority, out.OifName = unix.AF_INET, 200+i, 10+i, l.Attrs().Name
		rule(t, out)
		peer := &net.IPNet{IP: net.IPv4(10, 8, 0, byte(2-i)), Mask: net.CIDRMask(32, 32)}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: peer, Table: 200 + i, Scope: netlink.SCOPE_LINK, Src: net.IPv4(10, 8, 0, byte(1+i))}); err != nil {
			t.Fatal(err)
		}
	}
	first := netlink.NewRule()
	first.Family, first.Table, first.Priority = unix.AF_INET, unix.RT_TABLE_LOCAL, 0
	if err := netlink.RuleDel(first); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.RuleAdd(first); err != nil {
			t.Error(err)
		}
	})
	soft(t, "rda", "wirea")
	soft(t, "rdb", "wireb")
}

func rule(t *testing.T, r *netlink.Rule) {
	t.Helper()
	if err := netlink.RuleAdd(r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.RuleDel(r); err != nil {
			t.Error(err)
		}
	})
}

// set writes a setting, and puts it back.
func set(t *testing.T, path, value string) {
	t.Helper()
	was, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, was, 0); err != nil && !errors.Is(err, os.ErrNotExist) { // the device is gone by then
			t.Error(err)
		}
	})
}

// TestWire: two devices at the ends of a cable; what they say goes over it.
func TestWire(t *testing.T) {
	wire(t)
	const n = 300
	packets := func() uint64 {
		l, err := netlink.LinkByName("wireb")
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Statistics.RxPackets
	}
	before := packets()
	a, b := connected(t, "rda", "wireb", verbs.Path{})
	if from := a.qp.Endpoint().GID; from != netip.MustParseAddr("::ffff:10.8.0.1") {
		t.Errorf("the first end is %s", from)
	}
	both(t, a, b, n)
	if got := packets() - before; got < n { // a message is a packet at least; answers may be put together
		t.Errorf("%d packets arrived on the cable for %d messages", got, n)
	}
	if _, err := a.d.NewQueuePair(verbs.QueuePairOptions{Send: a.cq, Receive: a.cq, From: netip.MustParseAddr("10.8.0.2")}); err == nil || !strings.Contains(err.Error(), "address 10.8.0.2") {
		t.Errorf("a queue pair with an address of another device: %v", err)
	}
}

// TestPingpong talks to libibverbs' example: it is the server and the client in turns, its answers are our messages, and it checks that
// ours are as it says.
func TestPingpong(t *testing.T) {
	dev := device(t)
	path := ktest.Oracle(t, oracle)
	const port, size, rounds = "18515", 4096, 200
	for _, serves := range []bool{true, false} {
		e := must(t, dev)
		args := []string{"-d", dev, "-g", strconv.Itoa(indexOf(t, e)), "-p", port, "-s", strconv.Itoa(size), "-n", strconv.Itoa(rounds), "-m", "1024", "-c"}
		var l net.Listener
		if !serves {
			var err error
			if l, err = net.Listen("tcp", "127.0.0.1:"+port); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			args = append(args, "127.0.0.1")
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		err := answer(ctx, t, e, l, "127.0.0.1:"+port, size, rounds)
		if err != nil {
			cancel()
		}
		if werr := cmd.Wait(); werr != nil || err != nil || strings.Contains(out.String(), "invalid data") || !strings.Contains(out.String(), strconv.Itoa(rounds)+" iters") {
			t.Fatalf("it serves: %v; we: %v; it: %v\n%s", serves, err, werr, out.String())
		}
	}
}

// indexOf is the place of an end's address among those of its device.
func indexOf(t *testing.T, e *end) int {
	t.Helper()
	for _, g := range find(t, e.x.Device().Name).Ports[0].GIDs {
		if g.Addr == e.qp.Endpoint().GID && g.Type == "RoCE v2" {
			return g.Index
		}
	}
	t.Fatal("the end's address is none of its device")
	return 0
}

// destLen is the length of what the example tells of itself: local identifier, queue pair, packet number and address, and a zero.
const destLen = len("0000:000000:000000:") + 32 + 1

// answer exchanges endpoints with the example, and plays. As its client we begin, as its server it does.
func answer(ctx context.Context, t *testing.T, e *end, l net.Listener, addr string, size, rounds int) error {
	var c net.Conn
	var err error
	for { // until it listens
		if l != nil {
			c, err = l.Accept()
		} else {
			c, err = net.Dial("tcp", addr)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil || !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	me := e.qp.Endpoint()
	mine := fmt.Appendf(nil, "%04x:%06x:%06x:%x\x00", 0, me.QP, me.PSN, me.GID.As16())
	theirs, done := make([]byte, destLen), make([]byte, len("done")+1)
	tell := func(b []byte) {
		if err == nil {
			_, err = c.Write(b)
		}
	}
	hear := func(b []byte) {
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
	}
	connect := func() {
		if err != nil {
			return
		}
		var lid int
		var to verbs.Endpoint
		var raw []byte
		if _, err = fmt.Sscanf(strings.TrimRight(string(theirs), "\x00"), "%x:%x:%x:%x", &lid, &to.QP, &to.PSN, &raw); err != nil {
			return
		}
		to.GID, _ = netip.AddrFromSlice(raw)
		for i := range depth {
			if _, perr := e.qp.PostReceive(verbs.Receive{Segments: []verbs.Segment{e.room(i)}}); perr != nil {
				err = perr
				return
			}
		}
		err = e.qp.Connect(to, verbs.Path{MTU: 1024})
	}
	if l == nil {
		tell(mine)
		hear(theirs)
		connect()
		tell([]byte("done\x00"))
	} else {
		hear(theirs)
		connect()
		tell(mine)
		hear(done)
	}
	if err != nil {
		return err
	}
	sent, received := 0, 0
	var last []byte
	send := func() error {
		at, b := e.data(0)
		b = b[:size]
		for i := range b {
			b[i] = byte(sent + i)
		}
		for i := 0; i < size; i += os.Getpagesize() {
			b[i] = 0 // which it checks
		}
		last = bytes.Clone(b)
		sent++
		_, err := e.qp.PostSend(verbs.Send{Segments: []verbs.Segment{e.mem.Segment(at, size)}})
		return err
	}
	if l == nil {
		if err := send(); err != nil {
			return err
		}
	}
	for acked := 0; acked < rounds || received < rounds; {
		c := e.next(t)
		if err := c.Err(); err != nil {
			return err
		}
		if c.Op == verbs.OpSend {
			acked++
			continue
		}
		slot := received % depth
		got := e.mem.Bytes()[slot*mostLen:][:c.Bytes]
		if c.Bytes != size || last != nil && !bytes.Equal(got, last) {
			return fmt.Errorf("message %d of %d bytes is not what was sent", received, c.Bytes)
		}
		received++
		if _, err := e.qp.PostReceive(verbs.Receive{Segments: []verbs.Segment{e.room(slot)}}); err != nil {
			return err
		}
		if sent < rounds {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return nil
}
