package changes

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
)

var guests = ktest.Config{}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// next waits for a change.
func next(t *testing.T, l *Listener) *Change {
	t.Helper()
	select {
	case c, ok := <-l.Changes():
		if !ok {
			t.Fatalf("the listener ended: %v", l.Err())
		}
		return c
	case <-time.After(time.Minute):
		t.Fatal("no change came")
	}
	return nil
}

// describe puts a change on one line.
func describe(c *Change) string {
	o := c.New
	if o == nil {
		o = c.Old
	}
	s := fmt.Sprintf("%s %s", c.Kind, c.Act)
	switch {
	case o.Addr != nil:
		s += fmt.Sprintf(" %s on %s", o.Addr.Prefix, c.Dev)
	case o.Route != nil:
		s += fmt.Sprintf(" %s %s", o.Route.Type, o.Route.Dst)
	}
	if c.Silent != "" {
		s += " " + string(c.Silent)
	}
	if c.Cause != nil {
		s += " by " + string(c.Cause.Kind)
	}
	return s
}

// space is a namespace of the test's with a handle of netlink in it.
func space(t *testing.T) (netns.NS, *netlink.Handle, string) {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	h, err := netlink.NewHandleAt(nsh.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	return ns, h, fmt.Sprintf("/proc/self/fd/%d", ns.FD())
}

// gone is what the kernel does not tell when a link goes down.
const gone = "route removed unicast 198.51.100.0/24 consequence by link"

// TestListen: changes in another namespace are told, the routes that went silently too, and at last that all is gone with the
// namespace, which listening does not keep alive.
func TestListen(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	ns, h, ref := space(t)
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Kinds: []Kind{Addr, Route}, Namespaces: []string{ref}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(32, 32)}}
	var got []string
	if err := h.AddrAdd(lo, one); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got = append(got, describe(next(t, l)))
	}
	dst := &net.IPNet{IP: net.IPv4(198, 51, 100, 0).To4(), Mask: net.CIDRMask(24, 32)}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst}); err != nil {
		t.Fatal(err)
	}
	c := next(t, l)
	got = append(got, describe(c))
	if c.Socket == 0 || len(c.Msg) < headerLen || c.Socket != l.Cookies()[0] {
		t.Errorf("the change is without its message: %+v", c)
	}
	if err := h.AddrDel(lo, one); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got = append(got, describe(next(t, l)))
	}
	if err := h.LinkSetDown(lo); err != nil {
		t.Fatal(err)
	}
	for !slices.Contains(got, gone) {
		if got = append(got, describe(next(t, l))); len(got) > 20 {
			break
		}
	}
	got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "127.") || strings.Contains(s, "::") })
	h.Close()
	ns.Close()
	for c := (*Change)(nil); c == nil || c.Kind != Addr || c.Silent != NSGone; {
		c = next(t, l)
	}
	got = append(got, "the rest is gone")
	want := []string{
		"addr added 192.0.2.1/32 on lo", "route added local 192.0.2.1/32", "route added unicast 198.51.100.0/24",
		"addr removed 192.0.2.1/32 on lo", "route removed local 192.0.2.1/32", gone,
		"the rest is gone",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestNamespaces: namespaces are told when they come and go.
func TestNamespaces(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	l, err := Open(Options{Kinds: []Kind{NetNS}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("changes-%d", time.Now().UnixNano())
	if err := ns.Bind(name); err != nil {
		ns.Close()
		t.Fatal(err)
	}
	ino, err := inode(ns)
	if err != nil {
		t.Error(err)
	}
	l.Rescan()
	for {
		if c := next(t, l); c.Act == Added && c.NS.Inode == ino {
			if c.NS.Name != name {
				t.Errorf("it is called %q, not %q", c.NS.Name, name)
			}
			break
		}
	}
	if err := netns.Remove(name); err != nil {
		t.Error(err)
	}
	ns.Close()
	for {
		if c := next(t, l); c.Act == Removed && c.NS.Inode == ino {
			break
		}
	}
}

// TestSysctls: a sysctl that is written is told with its old and new value and the writer, where fanotify tells that.
func TestSysctls(t *testing.T) {
	ktest.NeedGuest(t, ktest.NetNS)
	l, err := Open(Options{Kinds: []Kind{Sysctl}, Match: func(name string) bool { return strings.HasPrefix(name, "net.ipv4.conf.default.") }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const file = "/proc/sys/net/ipv4/conf/default/rp_filter"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(file, old, 0)
	if err := os.WriteFile(file, []byte("2\n"), 0); err != nil {
		t.Fatal(err)
	}
	c := next(t, l)
	if c.New.Sysctl.Name != "net.ipv4.conf.default.rp_filter" || c.New.Sysctl.Value != "2" || c.Old.Sysctl.Value != strings.TrimSpace(string(old)) {
		t.Errorf("%+v %+v", c.Old.Sysctl, c.New.Sysctl)
	}
}

// TestNoSysctls: a pattern that no sysctl matches is an error.
func TestNoSysctls(t *testing.T) {
	if l, err := Open(Options{Kinds: []Kind{Sysctl}, Match: func(string) bool { return false }}); err == nil {
		l.Close()
		t.Error("no error")
	}
}
