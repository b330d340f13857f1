package core

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// workqueues prints the pools that have something to do, or all (-a).
func (s *Session) workqueues(w io.Writer, args []string) error {
	all := len(args) == 1 && args[0] == "-a"
	if len(args) > 0 && !all {
		return &Usage{}
	}
	pools, err := walk.Pools(s.t)
	work, idle := 0, 0
	for _, p := range pools {
		if !all && len(p.Busy)+len(p.Pending) == 0 {
			idle++
			continue
		}
		cpu := fmt.Sprintf("CPU %d", p.CPU)
		if p.CPU < 0 {
			cpu = "any CPU"
		}
		if p.BH {
			cpu += ", in softirqs"
		}
		fmt.Fprintf(w, "POOL: %-3d %s  NICE: %d  WORKERS: %d  IDLE: %d\n", p.ID, cpu, p.Nice, p.Workers, p.Idle)
		for _, x := range p.Busy {
			fmt.Fprintf(w, "  busy     %016x %-32s %s, PID: %d\n", x.Addr, s.name(x.Function, x.Function), x.Queue, x.PID)
		}
		for _, x := range p.Pending {
			fmt.Fprintf(w, "  pending  %016x %-32s %s\n", x.Addr, s.name(x.Function, x.Function), x.Queue)
		}
		work += len(p.Busy) + len(p.Pending)
	}
	if !all {
		fmt.Fprintf(w, "%s in %d pools; %d have nothing to do\n", plural(work, "work"), len(pools)-idle, idle)
	}
	return err
}

// softirqs prints what each kind of softirq did, and where it is pending.
func (s *Session) softirqs(w io.Writer) error {
	all, err := walk.SoftIRQs(s.t)
	fmt.Fprintf(w, "%-10s %-32s %s\n", "SOFTIRQ", "COUNT BY CPU", "PENDING ON")
	cpus := s.t.CPUs()
	for _, q := range all {
		var pending []string
		for i, p := range q.Pending {
			if p {
				pending = append(pending, fmt.Sprint("CPU ", cpus[i]))
			}
		}
		fmt.Fprintf(w, "%-10s %-32s %s\n", q.Name, strings.Trim(fmt.Sprint(q.Counts), "[]"), strings.Join(pending, ", "))
	}
	return err
}

// tcpStates are the names of the states (include/net/tcp_states.h), as ss has them.
var tcpStates = []string{"", "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "UNCONN", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "NEW-SYN-RECV"}

// States of sockets that are no struct sock.
const (
	timeWait   = 6
	newSynRecv = 12
)

// sockets prints TCP and UDP sockets with what is in their queues.
func (s *Session) sockets(w io.Writer) error {
	errs := &kernel.Errors{}
	fmt.Fprintf(w, "%-4s %-16s %-12s %8s %8s %8s %7s  %-28s %s\n", "KIND", "SOCK", "STATE", "RECV-Q", "SEND-Q", "BACKLOG", "DROPS", "LOCAL", "PEER")
	for c := range walk.TCPSockets(s.t, errs) {
		state := c.Get("skc_state").Int()
		if state == timeWait || state == newSynRecv {
			s.socket(w, "tcp", c, kernel.Value{}, state)
			continue
		}
		s.socket(w, "tcp", c, c.Cast("struct sock"), state)
	}
	for _, v := range walk.UDPSockets(s.t, errs) {
		s.socket(w, "udp", v.Get("__sk_common"), v, v.Get("__sk_common.skc_state").Int())
	}
	if err := errs.Take(); err != nil {
		return fmt.Errorf("walk sockets: %w (%d reads failed)", err, errs.N)
	}
	return nil
}

// taskSockets prints the sockets that a task has open.
func (s *Session) taskSockets(w io.Writer, t walk.Task) error {
	errs := &kernel.Errors{}
	fmt.Fprintf(w, "%4s %-16s %-16s %-10s %-12s %-28s %s\n", "FD", "SOCKET", "SOCK", "FAMILY", "STATE", "LOCAL", "PEER")
	for fd, f := range walk.Descriptors(t, errs) {
		if f.Get("f_inode.i_sb.s_type.name").String() != "sockfs" || f.Get("private_data").Uint() == 0 {
			continue
		}
		socket := kernel.Object(s.t, errs, "struct socket", f.Get("private_data").Uint())
		sk := socket.Get("sk")
		if sk.Uint() == 0 {
			continue
		}
		c := sk.Get("__sk_common")
		family, state := c.Get("skc_family").Int(), c.Get("skc_state").Int()
		name, local, peer := families[family], "", ""
		if name == "" {
			name = fmt.Sprint(family)
		}
		if family == afINET || family == afINET6 {
			l, p := ends(c)
			local, peer = l.String(), p.String()
		}
		fmt.Fprintf(w, "%4d %016x %016x %-10s %-12s %-28s %s\n", fd, socket.Addr, sk.Uint(), name, tcpState(state), local, peer)
	}
	return errs.Take()
}

// families are the address families that are met most (include/linux/socket.h).
var families = map[int]string{1: "UNIX", afINET: "INET", afINET6: "INET6", 16: "NETLINK", 17: "PACKET", 40: "VSOCK"}

func tcpState(state int) string {
	if state > 0 && state < len(tcpStates) {
		return tcpStates[state]
	}
	return fmt.Sprint(state)
}

// socket prints one; sk is not there for sockets that have no queues.
func (s *Session) socket(w io.Writer, kind string, c, sk kernel.Value, state int) {
	name := tcpState(state)
	var recv, send, backlog, drops uint64
	if sk.OK() {
		recv, send, backlog = sk.Get("sk_backlog.rmem_alloc.counter").Uint(), sk.Get("sk_wmem_queued").Uint(), sk.Get("sk_backlog.len").Uint()
		drops = sk.Get("sk_drops.counter").Uint()
	}
	local, peer := ends(c)
	fmt.Fprintf(w, "%-4s %016x %-12s %8d %8d %8d %7d  %-28s %s\n", kind, c.Addr, name, recv, send, backlog, drops, local, peer)
}

// AF_INET and AF_INET6.
const (
	afINET  = 2
	afINET6 = 10
)

// ends are the addresses of a socket: those of IPv6 if it is one.
func ends(c kernel.Value) (local, peer netip.AddrPort) {
	lport, pport := uint16(c.Get("skc_num").Uint()), uint16(c.Get("skc_dport").Uint())
	pport = pport>>8 | pport<<8
	if c.Get("skc_family").Uint() == afINET6 && c.Has("skc_v6_rcv_saddr") {
		l, _ := netip.AddrFromSlice(c.Get("skc_v6_rcv_saddr").Bytes(16))
		p, _ := netip.AddrFromSlice(c.Get("skc_v6_daddr").Bytes(16))
		return netip.AddrPortFrom(l, lport), netip.AddrPortFrom(p, pport)
	}
	l, _ := netip.AddrFromSlice(c.Get("skc_rcv_saddr").Bytes(4))
	p, _ := netip.AddrFromSlice(c.Get("skc_daddr").Bytes(4))
	return netip.AddrPortFrom(l, lport), netip.AddrPortFrom(p, pport)
}
