package changes

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/netstate"
)

func parse(t *testing.T, b []byte) *event {
	t.Helper()
	ms, err := split(b)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := decode(ms[0])
	if err != nil || ev == nil {
		t.Fatalf("%v %v", ev, err)
	}
	return ev
}

// say puts a change on one line.
func say(c *Change) string {
	if c == nil {
		return "-"
	}
	return fmt.Sprintf("%s %s %s old=%v new=%v%s", c.Kind, c.Act, c.Dev, c.Old != nil, c.New != nil, map[bool]string{true: " " + string(c.Silent)}[c.Silent != ""])
}

// TestApply: a sequence of messages, and what each means after those before it.
func TestApply(t *testing.T) {
	tab := newTable(netstate.Namespace{Inode: 1}, own)
	for i, step := range []struct {
		b    []byte
		want string
	}{
		{linkMessage(unix.RTM_NEWLINK, "eth0", 0x1002), "link added eth0 old=false new=true"},
		{linkMessage(unix.RTM_NEWLINK, "eth0", 0x1002), "-"},
		{linkMessage(unix.RTM_NEWLINK, "eth0", 0x1003), "link changed eth0 old=true new=true"},
		{addrMessage(unix.RTM_NEWADDR, forever, forever), "addr added eth0 old=false new=true"},
		{addrMessage(unix.RTM_NEWADDR, forever, forever), "-"},
		{addrMessage(unix.RTM_NEWADDR, 3600, 3600), "addr changed eth0 old=true new=true"},
		{addrMessage(unix.RTM_NEWADDR, 3600, 3600), "addr changed eth0 old=true new=true"}, // renewed
		{addrMessage(unix.RTM_DELADDR, 3600, 3600), "addr removed eth0 old=true new=false"},
		{routeMessage(unix.RTM_NEWROUTE, 0, 1), "route added eth0 old=false new=true"},
		{routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, 2), "route changed eth0 old=true new=true"},
		{routeMessage(unix.RTM_DELROUTE, 0, 1), "route removed eth0 old=true new=false"}, // not known: told all the same
		{linkMessage(unix.RTM_NEWLINK, "lan0", 0x1003), "link changed lan0 old=true new=true"},
		{linkMessage(unix.RTM_DELLINK, "lan0", 0x1002), "link removed lan0 old=true new=false"},
		{routeMessage(unix.RTM_DELROUTE, 0, 2), "route removed lan0 old=true new=false"}, // its name is still known
	} {
		if got := say(tab.apply(parse(t, step.b))); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
}

// TestDiff: what was not told is found by comparing.
func TestDiff(t *testing.T) {
	tab := newTable(netstate.Namespace{Inode: 1}, own)
	tab.apply(parse(t, linkMessage(unix.RTM_NEWLINK, "eth0", 3)))
	tab.apply(parse(t, routeMessage(unix.RTM_NEWROUTE, 0, 1)))
	tab.apply(parse(t, routeMessage(unix.RTM_NEWROUTE, 0, 2)))
	now := []*Object{parse(t, routeMessage(unix.RTM_NEWROUTE, 0, 2)).obj, parse(t, routeMessage(unix.RTM_NEWROUTE, 0, 3)).obj}
	var got []string
	for _, c := range tab.diff(Route, now, Followed) {
		o := c.New
		if o == nil {
			o = c.Old
		}
		got = append(got, say(c)+" "+o.Route.Via.String())
	}
	want := []string{"route added eth0 old=false new=true consequence 192.0.2.3", "route removed eth0 old=true new=false consequence 192.0.2.1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := len(tab.all(Route, NSGone)); n != 2 {
		t.Errorf("%d routes are gone with the namespace, want 2", n)
	}
}
