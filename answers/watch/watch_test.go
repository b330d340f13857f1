package watch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/netstate/changes"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

var guests = ktest.Config{Modules: []string{"veth", "dummy"}}

func TestMain(m *testing.M) {
	if ns := os.Getenv("FATHOM_WATCH_DAEMON"); ns != "" {
		if err := daemon(ns); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// many is how many addresses a burst has.
const many = 2000

// daemonName is what the daemon calls itself.
const daemonName = "netdaemon"

// daemon manages a namespace as NetworkManager would: it does what it is told on standard input, on the link lo.
func daemon(ns string) error {
	runtime.LockOSThread() // which has the name
	name, err := unix.BytePtrFromString(daemonName)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptrOf(name), 0, 0, 0); err != nil {
		return err
	}
	at, err := nsh.GetFromPath(ns)
	if err != nil {
		return err
	}
	defer at.Close()
	h, err := netlink.NewHandleAt(at, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := unix.Setns(int(at), unix.CLONE_NEWNET); err != nil { // for what is asked otherwise than by netlink
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for fmt.Println("ready"); in.Scan(); {
		if err := manage(h, lo, strings.Fields(in.Text())); err != nil {
			return fmt.Errorf("%s: %w", in.Text(), err)
		}
		fmt.Println("done")
	}
	return in.Err()
}

func manage(h *netlink.Handle, lo netlink.Link, words []string) error {
	switch words[0] {
	case "up":
		return h.LinkSetUp(lo)
	case "down":
		return h.LinkSetDown(lo)
	case "flush":
		as, err := h.AddrList(lo, netlink.FAMILY_V4)
		for _, a := range as {
			if err := h.AddrDel(lo, &a); err != nil {
				return err
			}
		}
		return err
	case "many":
		for i := range many {
			if err := h.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Mask: net.CIDRMask(32, 32)}}); err != nil {
				return err
			}
		}
		return nil
	case "sysctl":
		return os.WriteFile(words[1], []byte(words[2]), 0)
	case "ioctl":
		return setAddress(words[1])
	case "rule":
		r := netlink.NewRule()
		r.Priority, r.Table, r.Family = 1000, 99, netlink.FAMILY_V4
		return h.RuleAdd(r)
	case "neigh":
		return h.NeighAdd(&netlink.Neigh{LinkIndex: lo.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(words[1]), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	}
	ip, n, err := net.ParseCIDR(words[1])
	if err != nil {
		return err
	}
	n.IP = ip
	a := &netlink.Addr{IPNet: n, Flags: unix.IFA_F_NODAD}
	switch words[0] {
	case "lease":
		a.ValidLft, a.PreferedLft = 2, 2
		fallthrough
	case "add":
		return h.AddrAdd(lo, a)
	case "del":
		return h.AddrDel(lo, a)
	}
	return fmt.Errorf("no command %q", words[0])
}

// setAddress sets the address of lo as ifconfig(8) does.
func setAddress(addr string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := req.SetInet4Addr(net.ParseIP(addr).To4()); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, unix.SIOCSIFADDR, req)
}

// site is a namespace with its daemon and a watch on its addresses.
type site struct {
	t    *testing.T
	ns   netns.NS
	w    *Watcher
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	open bool
}

// tell has the daemon do something and waits until it is done.
func (s *site) tell(words string) {
	s.t.Helper()
	fmt.Fprintln(s.in, words)
	if !s.out.Scan() || s.out.Text() != "done" {
		s.t.Fatalf("the daemon did not %s: %q", words, s.out.Text())
	}
}

func newSite(t *testing.T, o Options) *site {
	t.Helper()
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.Ringbuf, ktest.NetNS, ktest.Kallsyms)
	s := &site{t: t, open: true}
	var err error
	if s.ns, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.letGo)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(self)
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("FATHOM_WATCH_DAEMON=/proc/%d/fd/%d", os.Getpid(), s.ns.FD()))
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !s.out.Scan() || s.out.Text() != "ready" {
		t.Fatalf("the daemon did not start: %q", s.out.Text())
	}
	s.tell("up")
	if o.Kinds == nil {
		o.Kinds = []changes.Kind{changes.Addr}
	}
	o.Namespaces = []string{fmt.Sprintf("/proc/self/fd/%d", s.ns.FD())}
	s.w = openWatch(t, o)
	return s
}

// letGo ends the daemon and lets go of the namespace: nobody is in it then.
func (s *site) letGo() {
	if !s.open {
		return
	}
	s.open = false
	if s.in != nil {
		s.in.Close()
		if err := s.cmd.Wait(); err != nil {
			s.t.Error(err)
		}
	}
	s.ns.Close()
}

// symbols are the running kernel's.
type symbols struct{ *live.Live }

func (s symbols) Address(name string) []uint64 {
	t, err := s.Kallsyms()
	if err != nil {
		return nil
	}
	return t.ByName(name)
}

func openWatch(t *testing.T, o Options) *Watcher {
	t.Helper()
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	users := usersym.New(usersym.Options{})
	world := probe.NewWorld(l, users, 0)
	if o.CPUs, err = l.NumCPU(); err != nil {
		t.Fatal(err)
	}
	w, err := Open(world, symbols{l}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		world.Close()
		users.Close()
		l.Close()
	})
	for _, m := range w.Means() {
		t.Log(m)
	}
	return w
}

// next waits for a record of a kind, an act and an object.
func (s *site) next(kind changes.Kind, act changes.Act, what string) *Record {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		r, err := s.w.Next(ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		if r == nil {
			s.t.Fatalf("nobody told of %s %s %s", kind, act, what)
		}
		var b strings.Builder
		r.WriteText(&b, true)
		s.t.Log(b.String())
		if r.Kind == kind && r.Act == act && strings.HasPrefix(r.What, what) {
			return r
		}
	}
}

// byDaemon checks that the daemon was named.
func (s *site) byDaemon(r *Record) {
	s.t.Helper()
	w := r.Who
	if w == nil || w.PID != s.cmd.Process.Pid || w.Comm != daemonName || w.UID == nil || *w.UID != 0 || w.Evidence != Seen || len(w.Parents) == 0 || w.Parents[0].PID != os.Getpid() {
		s.t.Errorf("who did it: %+v, not %s[%d]", w, daemonName, s.cmd.Process.Pid)
	}
}

// onPath checks that the stack has a function.
func (s *site) onPath(r *Record, fn string) {
	s.t.Helper()
	for _, f := range functions(r.Stack) {
		if name, _, _ := strings.Cut(f, "."); name == fn {
			return
		}
	}
	s.t.Errorf("%s is not on the path: %v", fn, r.Stack)
}

// (a) A process deletes an address.
func TestAddressDeleted(t *testing.T) {
	s := newSite(t, Options{Dev: "lo"})
	s.tell("add 192.0.2.9/24")
	added := s.next(changes.Addr, changes.Added, "192.0.2.9/24 to lo")
	s.byDaemon(added)
	s.tell("del 192.0.2.9/24")
	r := s.next(changes.Addr, changes.Removed, "192.0.2.9/24 from lo")
	s.byDaemon(r)
	s.onPath(r, "inet_rtm_deladdr")
	if r.How != ByNetlink || r.Request != "RTM_DELADDR" || r.Via != "" {
		t.Errorf("how %q, request %q, via %q", r.How, r.Request, r.Via)
	}
}

// (b) An address's lifetime, as a DHCP client sets it to its lease's, runs out: IPv4 and IPv6.
func TestLeaseExpired(t *testing.T) {
	for addr, work := range map[string]string{"192.0.2.9/24": "check_lifetime", "2001:db8::9/64": "addrconf_verify_work"} {
		s := newSite(t, Options{Dev: "lo"})
		s.tell("lease " + addr)
		s.byDaemon(s.next(changes.Addr, changes.Added, addr+" to lo"))
		r := s.next(changes.Addr, changes.Removed, addr+" from lo")
		s.onPath(r, work)
		if r.How != ByLifetime || r.Who != nil && !r.Who.Kernel || !strings.Contains(r.Because, "lifetime") {
			t.Errorf("how %q, who %v, because %s", r.How, r.Who, r.Because)
		}
	}
}

// (c) A daemon that manages the network flushes addresses through netlink.
func TestDaemonFlushes(t *testing.T) {
	s := newSite(t, Options{})
	for _, a := range []string{"192.0.2.9/24", "198.51.100.9/24"} {
		s.tell("add " + a)
		s.next(changes.Addr, changes.Added, a)
	}
	s.tell("flush")
	for range 3 { // with 127.0.0.1
		r := s.next(changes.Addr, changes.Removed, "")
		s.byDaemon(r)
		if r.How != ByNetlink || r.Request != "RTM_DELADDR" {
			t.Errorf("%s: how %q, request %q", r.What, r.How, r.Request)
		}
	}
}

// (d) The link goes down, and the kernel removes its IPv6 addresses.
func TestLinkDown(t *testing.T) {
	s := newSite(t, Options{})
	s.tell("add 2001:db8::9/64")
	s.byDaemon(s.next(changes.Addr, changes.Added, "2001:db8::9/64"))
	s.tell("down")
	r := s.next(changes.Addr, changes.Removed, "2001:db8::9/64")
	s.byDaemon(r)
	s.onPath(r, "addrconf_ifdown")
	if r.How != ByLinkDown || r.Via != ByNetlink || !strings.Contains(r.Because, "the link was set down") {
		t.Errorf("how %q, via %q, because %s", r.How, r.Via, r.Because)
	}
}

// (e) The namespace is deleted: by whoever lets go of it last. That can be the kernel for a socket of the daemon's, whose end
// it puts off; then it is tried again.
func TestNamespaceDeleted(t *testing.T) {
	for range 5 {
		who := deleteNamespace(t)
		if who == nil || who.Kernel {
			continue
		}
		if who.PID != os.Getpid() {
			t.Errorf("who let go of it: %+v, not %d", who, os.Getpid())
		}
		return
	}
	t.Error("who let go of it is not known")
}

// deleteNamespace watches a namespace of a name whose name is then removed, and gives who is said to have deleted it.
func deleteNamespace(t *testing.T) *Who {
	s := newSite(t, Options{})
	s.tell("add 192.0.2.9/24")
	s.next(changes.Addr, changes.Added, "192.0.2.9/24")
	name := fmt.Sprintf("watch-%d", os.Getpid())
	if err := s.ns.Bind(name); err != nil {
		t.Fatal(err)
	}
	s.letGo()
	for range 3 { // the daemon's sockets let go of it after a grace period of RCU, for which this waits
		if _, _, err := unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0); err != 0 { // MEMBARRIER_CMD_GLOBAL
			t.Fatal(err)
		}
	}
	if err := netns.Remove(name); err != nil {
		t.Fatal(err)
	}
	r := s.next(changes.Addr, changes.Removed, "192.0.2.9/24")
	if r.How != ByNamespace || !strings.Contains(r.Because, "namespace was deleted") {
		t.Errorf("how %q, because %s", r.How, r.Because)
	}
	return r.Who
}

// TestDuplicate: another host has the address.
func TestDuplicate(t *testing.T) {
	s := newSite(t, Options{})
	other, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	here, err := netlink.NewHandleAt(nsh.NsHandle(s.ns.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := netlink.NewHandleAt(nsh.NsHandle(other.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	n := &net.IPNet{IP: net.ParseIP("2001:db8::9"), Mask: net.CIDRMask(64, 128)}
	if err := here.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b", PeerNamespace: netlink.NsFd(other.FD())}); err != nil {
		t.Fatal(err)
	}
	for _, side := range []struct {
		h     *netlink.Handle
		name  string
		flags int
	}{{there, "b", unix.IFA_F_NODAD}, {here, "a", 0}} {
		l, err := side.h.LinkByName(side.name)
		if err == nil {
			err = side.h.LinkSetUp(l)
		}
		if err == nil {
			err = side.h.AddrAdd(l, &netlink.Addr{IPNet: n, Flags: side.flags})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := s.next(changes.Addr, changes.Changed, "2001:db8::9/64 on a")
	if r.How != ByDAD || !strings.Contains(r.Because, "another host has this address") || !slices.Contains(r.Diff, "now dadfailed") {
		t.Errorf("how %q, diff %q, because %s", r.How, r.Diff, r.Because)
	}
}

// TestWithoutBPF: changes are told, and who asked by the port of its socket.
func TestWithoutBPF(t *testing.T) {
	s := newSite(t, Options{NoBPF: true})
	s.tell("add 192.0.2.9/24")
	r := s.next(changes.Addr, changes.Added, "192.0.2.9/24")
	if r.How != ByNetlink || r.Who == nil || r.Who.Evidence != Port {
		t.Errorf("how %q, who %+v", r.How, r.Who)
	}
	if r.Who != nil && r.Who.PID == s.cmd.Process.Pid && r.Who.Comm == "" {
		t.Errorf("the process still is, and has no name: %+v", r.Who)
	}
}

// TestRoutesFollow: routes that the kernel takes out silently have the author of what took them along.
func TestRoutesFollow(t *testing.T) {
	s := newSite(t, Options{Kinds: []changes.Kind{changes.Route}})
	s.tell("down")
	r := s.next(changes.Route, changes.Removed, "broadcast 127.255.255.255")
	s.byDaemon(r)
	if r.How != ByLinkDown {
		t.Errorf("how %q", r.How)
	}
}

// TestBurst: many changes at once, each with its author, and nothing lost.
func TestBurst(t *testing.T) {
	s := newSite(t, Options{})
	s.tell("many")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	unseen := 0
	for i := range many {
		r, err := s.w.Next(ctx)
		if err != nil || r == nil {
			t.Fatalf("after %d changes: %v %v", i, r, err)
		}
		if r.Who == nil || r.Who.PID != s.cmd.Process.Pid || r.Who.Evidence != Seen {
			unseen++
		}
	}
	if messages, sightings := s.w.Lost(); unseen+int(messages+sightings) > 0 {
		t.Errorf("%d of %d without an author; lost %d messages, %d sightings", unseen, many, messages, sightings)
	}
}

// TestIoctl: ifconfig's way.
func TestIoctl(t *testing.T) {
	s := newSite(t, Options{})
	s.tell("ioctl 192.0.2.7")
	r := s.next(changes.Addr, changes.Added, "192.0.2.7")
	s.byDaemon(r)
	s.onPath(r, "devinet_ioctl")
	if r.How != ByIoctl || r.Request != "ioctl(2)" {
		t.Errorf("how %q, request %q", r.How, r.Request)
	}
}

// TestRulesAndNeighbours: other tables, the same author.
func TestRulesAndNeighbours(t *testing.T) {
	s := newSite(t, Options{Kinds: []changes.Kind{changes.Rule, changes.Neigh}})
	s.tell("rule")
	s.byDaemon(s.next(changes.Rule, changes.Added, "1000: from all lookup 99"))
	s.tell("neigh 192.0.2.3")
	s.byDaemon(s.next(changes.Neigh, changes.Added, "0.0.0.0 dev lo 02:00:00:00:00:01")) // all of them are one where there is no ARP
}

// TestSysctl: a write in another namespace, and what the kernel sets along with it.
func TestSysctl(t *testing.T) {
	s := newSite(t, Options{Kinds: []changes.Kind{changes.Sysctl}, Match: "net.ipv4.*"})
	s.tell("sysctl /proc/sys/net/ipv4/ip_forward 1")
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv4.conf.lo.forwarding"} {
		r := s.next(changes.Sysctl, changes.Changed, name+" = 1")
		s.byDaemon(r)
		if r.How != BySysctl {
			t.Errorf("how %q", r.How)
		}
	}
}

// TestNamespaceMade: who made a namespace.
func TestNamespaceMade(t *testing.T) {
	s := newSite(t, Options{Kinds: []changes.Kind{changes.NetNS}})
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	name := fmt.Sprintf("watch-made-%d", os.Getpid())
	if err := ns.Bind(name); err != nil {
		t.Fatal(err)
	}
	r := s.next(changes.NetNS, changes.Added, name)
	if err := netns.Remove(name); err != nil {
		t.Error(err)
	}
	if r.Who == nil || r.Who.PID != os.Getpid() {
		t.Errorf("who made it: %+v", r.Who)
	}
}

// TestModule: who unloaded a module.
func TestModule(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint, ktest.Modules)
	s := &site{t: t, w: openWatch(t, Options{Kinds: []changes.Kind{changes.Module}})}
	if err := unix.DeleteModule("dummy", 0); err != nil {
		t.Fatal(err)
	}
	r := s.next(changes.Module, changes.Removed, "dummy")
	if r.How != ByModule || r.Request != "delete_module(2)" || r.Who == nil || r.Who.PID != os.Getpid() {
		t.Errorf("how %q, request %q, who %+v", r.How, r.Request, r.Who)
	}
}
