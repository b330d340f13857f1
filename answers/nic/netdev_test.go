package nic_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/polling"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// netdev is what the family netdev of generic netlink says of a device, by other code than what is tested
// (Documentation/netlink/specs/netdev.yaml).
type netdev struct {
	Queues map[string]uint32    // "rx-0" → NAPI
	NAPIs  map[uint32][2]uint32 // irq, pid
}

// dumped asks for queues (command 10, whose attribute 2 is the device) or NAPI instances (11, attribute 1), and gives the numbers
// of the attributes of each.
func dumped(family *netlink.GenlFamily, command uint8, attr uint16, index int) (out []map[uint16]uint32, err error) {
	c, err := mdnetlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	e := mdnetlink.NewAttributeEncoder()
	e.Uint32(attr, uint32(index))
	body, err := e.Encode()
	if err != nil {
		return nil, err
	}
	const header = 4 // struct genlmsghdr
	msgs, err := c.Execute(mdnetlink.Message{
		Header: mdnetlink.Header{Type: mdnetlink.HeaderType(family.ID), Flags: mdnetlink.Request | mdnetlink.Dump}, Data: append([]byte{command, 1, 0, 0}, body...),
	})
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		d, err := mdnetlink.NewAttributeDecoder(m.Data[header:])
		if err != nil {
			return nil, err
		}
		one := map[uint16]uint32{}
		for d.Next() {
			if len(d.Bytes()) == 4 {
				one[d.Type()] = d.Uint32()
			}
		}
		if err := d.Err(); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// netdevOf asks it of a device of the namespace that the thread is in.
func netdevOf(index int) (n netdev, err error) {
	n = netdev{map[string]uint32{}, map[uint32][2]uint32{}}
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return n, err
	}
	queues, err := dumped(family, 10, 2, index)
	if err != nil {
		return n, err
	}
	for _, q := range queues {
		n.Queues[fmt.Sprintf("%s-%d", []string{"rx", "tx"}[q[3]], q[1])] = q[4]
	}
	napis, err := dumped(family, 11, 1, index)
	for _, p := range napis {
		n.NAPIs[p[2]] = [2]uint32{p[3], p[4]}
	}
	return n, err
}

// TestNetdev compares queues and NAPI instances of cards and of a veth with what netdev netlink says, and what the map makes of them: what
// a driver does not tell is said.
func TestNetdev(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	pair, err := polling.NewPair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pair.Close(); err != nil {
			t.Error(err)
		}
	}()
	if ktest.InGuest() {
		for _, m := range cards(t) {
			up(t, m.Name)
		}
	}
	here, err := netlive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	drivers := 0
	for _, r := range []*netlive.Reader{here, pair.Reader} {
		devs, err := r.NICs("")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range devs {
			if d.Driver != "" && d.Up {
				drivers++
				t.Run(d.Driver, func(t *testing.T) { checkNetdev(t, r, nic.NewMap(d)) })
			}
		}
	}
	if least := map[bool]int{true: 4, false: 1}[ktest.InGuest()]; drivers < least {
		t.Errorf("%d devices, of %d at least", drivers, least)
	}
}

func checkNetdev(t *testing.T, r *netlive.Reader, m *nic.Map) {
	var want netdev
	err := r.Do(func() (err error) {
		want, err = netdevOf(m.Index)
		return err
	})
	said := strings.Join(m.Findings, "\n")
	t.Logf("%s: %+v\n%s", m.Name, want, said)
	if err != nil { // before Linux 6.8
		if !slices.ContainsFunc(m.Missing, func(x netnic.Missing) bool { return x.What == "netdev netlink" }) {
			t.Errorf("netdev netlink gives %v, and is not said to be missing: %+v", err, m.Missing)
		}
		return
	}
	got := netdev{map[string]uint32{}, map[uint32][2]uint32{}}
	for _, q := range m.Queues {
		if q.Net {
			got.Queues[fmt.Sprintf("%s-%d", q.Dir, q.Index)] = q.NAPI
		}
	}
	for _, n := range m.NAPIs {
		got.NAPIs[n.ID] = [2]uint32{uint32(n.IRQ), uint32(n.PID)}
	}
	if d := cmp.Diff(want, got); d != "" || len(want.Queues) == 0 {
		t.Errorf("%s: %s", m.Name, d)
	}
	interrupts := false
	for id, n := range want.NAPIs {
		interrupts = interrupts || n[0] != 0
		row := slices.IndexFunc(m.Rows, func(r nic.Row) bool { return slices.Contains(r.NAPIs, id) })
		queue := slices.IndexFunc(m.Queues, func(q netnic.Queue) bool { return q.NAPI == id })
		switch {
		case n[0] != 0 && (row < 0 || m.Rows[row].Vector == nil || m.Rows[row].Vector.IRQ != int(n[0])):
			t.Errorf("NAPI %d is not with irq %d, which netlink says", id, n[0])
		case queue >= 0 && (row < 0 || !slices.Contains(m.Rows[row].Queues, &m.Queues[queue])):
			t.Errorf("NAPI %d is not with %s-%d, which netlink says", id, m.Queues[queue].Dir, m.Queues[queue].Index)
		case n[0] == 0 && queue < 0 && !strings.Contains(said, fmt.Sprint(id)):
			t.Errorf("that the driver does not tell of what NAPI %d is, is not said:\n%s", id, said)
		}
	}
	if silent := "does not tell netdev netlink the interrupts"; len(m.Vectors) > 0 && len(want.NAPIs) > 0 && interrupts == strings.Contains(said, silent) {
		t.Errorf("the driver tells interrupts: %v, and it is said:\n%s", interrupts, said)
	}
}
