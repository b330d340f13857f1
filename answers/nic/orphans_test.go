package nic_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	netlive "github.com/fathom-trace/fathom/netstate/live"
)

// unheld are sockets that nobody has open: they are on their way through a socket pair.
type unheld struct {
	pair   [2]int
	inodes map[string]uint64
}

// inode is that of a socket.
func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// makeKinds makes a socket of each kind in a namespace.
func makeKinds(t *testing.T, ns netns.NS) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := ns.Do(func() error {
		for _, k := range []struct {
			name                  string
			family, typ, protocol int
		}{{"raw protocol 157", unix.AF_INET, unix.SOCK_RAW, 157}, {"raw protocol 157 of IPv6", unix.AF_INET6, unix.SOCK_RAW, 157}, {"packet 0x0060", unix.AF_PACKET, unix.SOCK_RAW, 0x6000},
			{"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, {"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0}} {
			if (k.name == "sctp" || k.name == "vsock") && !ktest.InGuest() { // it might be loaded
				continue
			}
			fd, err := unix.Socket(k.family, k.typ|unix.SOCK_CLOEXEC, k.protocol)
			if err == nil && k.name == "sctp" {
				err = unix.Listen(fd, 1) // others are in no list
			}
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			out[k.name] = fd
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sent makes a socket of each kind, sends them, and keeps none.
func sent(t *testing.T, ns netns.NS) (u unheld) {
	t.Helper()
	var err error
	if u.pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	u.inodes = map[string]uint64{}
	var fds []int
	for name, fd := range makeKinds(t, ns) {
		u.inodes[name] = inode(t, fd)
		fds = append(fds, fd)
	}
	if err := unix.Sendmsg(u.pair[0], []byte("?"), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return u
}

// TestOrphans: raw, packet, SCTP and vsock sockets that no process has open are told from those that one has.
func TestOrphans(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	ns := ktest.Loopback(t, "lo")
	for _, fd := range makeKinds(t, ns) {
		defer unix.Close(fd)
	}
	u := sent(t, ns)
	r, err := netlive.OpenNS(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	socks, missing := r.Orphans()
	if ktest.InGuest() && len(missing) > 0 {
		t.Error(missing)
	}
	found := nic.Orphans(socks, r.NS().Inode)
	if len(found) != len(u.inodes) {
		t.Errorf("%d, not %d: %+v", len(found), len(u.inodes), found)
	}
	for name, ino := range u.inodes {
		i := slices.IndexFunc(found, func(s nic.KernelSocket) bool { return s.Inode == ino })
		if i < 0 || found[i].Proto != name || found[i].Kern || !found[i].Orphan || found[i].NetNS != r.NS().Inode {
			t.Errorf("%s, inode %d: %+v", name, ino, found)
		}
	}
	var text strings.Builder
	if err := nic.WriteSockets(&text, found, nil); err != nil || strings.Count(text.String(), "no process has it") != len(found) {
		t.Errorf("%v\n%s", err, &text)
	}
	t.Logf("%v\n%s", missing, &text)
	unix.Close(u.pair[0]) // what was sent is there still
	if socks, _ = r.Orphans(); len(socks) != len(found) {
		t.Errorf("%+v", socks)
	}
	unix.Close(u.pair[1])
	for deadline := time.Now().Add(time.Minute); len(socks) > 0; time.Sleep(10 * time.Millisecond) { // the kernel lets go of them later
		if socks, _ = r.Orphans(); time.Now().After(deadline) {
			t.Fatalf("those that are gone: %+v", socks)
		}
	}
}
