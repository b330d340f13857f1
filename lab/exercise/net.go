package exercise

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/lab/draw"
)

// closedPort: many connections are made, and one is refused.
func closedPort(ctx context.Context, b *Bench) (p Problem, err error) {
	n := b.Net()
	lab, err := b.Lab(ctx, fmt.Sprintf("client:%s.0.1/24 -- server:%s.0.2/24", n, n))
	if err != nil {
		return p, err
	}
	var ports []string
	for range 6 {
		ports = append(ports, strconv.Itoa(b.Port()))
	}
	closed := ports[b.IntN(len(ports))]
	open := strings.ReplaceAll(strings.Join(ports, ","), closed, "")
	if _, err := b.Actor(b.Word(), lab, "server", "serve", n+".0.2", strings.Trim(strings.ReplaceAll(open, ",,", ","), ",")); err != nil {
		return p, err
	}
	if _, err := b.Actor(b.Word(), lab, "client", "connect", n+".0.2", strings.Join(ports, ",")); err != nil {
		return p, err
	}
	return Problem{
		Text: fmt.Sprintf("In lab %s, client connects to %s.0.2 (server) on ports %s in turn. One of them is closed. Which?", lab, n, strings.Join(ports, ", ")),
		Hints: []string{
			"A closed port answers with a reset: fathom trace -l 'tracepoint:tcp:*reset*'",
			`fathom trace -e 'tracepoint:tcp:tcp_receive_reset { @[args.dport] = count(); }' --for 3s`,
		},
		Answer: closed,
		Why:    "tcp_receive_reset has the port that the reset came from.",
	}, nil
}

// droppedPacket: datagrams cross a router to one of several hosts and do not arrive.
func droppedPacket(ctx context.Context, b *Bench) (p Problem, err error) {
	n, devs, port := b.Net(), b.Words(4), b.Port()
	ports := map[string]int{"router": b.Port(), "server": b.Port()} // of the rules: both have one, one of them matters
	where := draw.Pick(b.Deck, "router", "server")
	ports[where] = port
	into := map[string]string{"router": devs[1], "server": devs[3]}
	lab, err := b.Lab(ctx, fmt.Sprintf(`client:%[1]s.1.1/24{dev=%[2]s} -- router:%[1]s.1.2/24{dev=%[3]s}; router:%[1]s.2.2/24{dev=%[4]s} -- server:%[1]s.2.1/24{dev=%[5]s}
router router { nft forward udp dport %[6]d drop }
host client { route default via %[1]s.1.2 }
host server { route default via %[1]s.2.2; nft input udp dport %[7]d drop }`, n, devs[0], devs[1], devs[2], devs[3], ports["router"], ports["server"]))
	if err != nil {
		return p, err
	}
	if _, err := b.Actor(b.Word(), lab, "server", "receive", fmt.Sprintf("%s.2.1:%d", n, port)); err != nil {
		return p, err
	}
	if _, err := b.Actor(b.Word(), lab, "client", "send", fmt.Sprintf("%s.2.1:%d", n, port)); err != nil {
		return p, err
	}
	return Problem{
		Text: fmt.Sprintf(`In lab %s, client sends datagrams to %s.2.1 port %d (server), through router:
  client %s --- %s router %s --- %s server
They do not arrive. At which of these devices do they come in last, before they are dropped?`, lab, n, port, devs[0], devs[1], devs[2], devs[3]),
		Hints: []string{
			"The kernel tells of every packet that it drops: tracepoint:skb:kfree_skb, with the place in its code.",
			`fathom trace -e 'tracepoint:skb:kfree_skb { @[ksym(args.location)] = count(); }' --for 3s`,
			`fathom trace -e 'tracepoint:skb:kfree_skb { @[ksym(args.location), ((struct sk_buff *)args.skbaddr)->dev->name] = count(); }' --for 3s`,
			"Or ask for the verdict: fathom packet drops --for 3s",
		},
		Answer: into[where],
		Why:    fmt.Sprintf("a rule of nftables in %s drops them (fathom lab exec --lab %s %s -- nft list ruleset).", where, lab, where),
	}, nil
}

// loopbackSource: of several streams onto the wire, one has a loopback address as its source, and is dropped as a martian.
func loopbackSource(ctx context.Context, b *Bench) (p Problem, err error) {
	n, mac := b.Net(), fmt.Sprintf("02:00:00:00:%02x:02", b.IntN(256))
	lab, err := b.Lab(ctx, fmt.Sprintf("client:%s.0.1/24{dev=eth0} -- server:%s.0.2/24{dev=eth0 mac=%s}", n, n, mac))
	if err != nil {
		return p, err
	}
	ports := []int{b.Port(), b.Port(), b.Port(), b.Port()}
	bad := b.IntN(len(ports))
	for i, port := range ports {
		src := n + ".0.1"
		if i == bad {
			src = fmt.Sprintf("127.0.%d.%d", b.IntN(256), 1+b.IntN(254))
		}
		dst := fmt.Sprintf("%s.0.2:%d", n, port)
		if i != bad {
			if _, err := b.Actor(b.Word(), lab, "server", "receive", dst); err != nil {
				return p, err
			}
		}
		if _, err := b.Actor(b.Word(), lab, "client", "frames", "eth0", mac, src, dst); err != nil {
			return p, err
		}
	}
	return Problem{
		Text: fmt.Sprintf(`In lab %s, client sends datagrams to %s.0.2 (server), to four ports: %s. One of the streams leaves with a loopback
address (127.0.0.0/8) as its source, and the server's kernel drops it. To which port does it go?`, lab, n, strings.Trim(fmt.Sprint(ports), "[]")),
		Hints: []string{
			"Look at what is dropped: tracepoint:skb:kfree_skb. The packet is at args.skbaddr, its headers at head + network_header.",
			`fathom trace -e 'tracepoint:skb:kfree_skb { $s = (struct sk_buff *)args.skbaddr; $ip = (struct iphdr *)($s->head + $s->network_header);
  $udp = (struct udphdr *)((uint8 *)$ip + 20); @[ntop($ip->saddr), bswap($udp->dest)] = count(); }' --for 3s`,
		},
		Answer: strconv.Itoa(ports[bad]),
		Why:    "ip_route_input takes a loopback source from the wire for a martian, unless route_localnet of the device is 1.",
	}, nil
}

// lostAddress: somebody deletes an address, somebody else puts it back, others only look.
func lostAddress(ctx context.Context, b *Bench) (p Problem, err error) {
	n, dev := b.Net(), b.Word()
	lab, err := b.Lab(ctx, fmt.Sprintf("host:%s.0.1/24{dev=%s} -- peer:%s.0.2/24", n, dev, n))
	if err != nil {
		return p, err
	}
	names := b.Words(4)
	roles := [][]string{{"del-address", dev, n + ".0.1/24"}, {"add-address", dev, n + ".0.1/24"}, {"get-address", dev}, {"get-address", dev}}
	for i, r := range roles {
		if _, err := b.Actor(names[i], lab, "host", r...); err != nil {
			return p, err
		}
	}
	shown := append([]string{}, names...)
	b.Shuffle(len(shown), func(i, j int) { shown[i], shown[j] = shown[j], shown[i] })
	return Problem{
		Text: fmt.Sprintf(`In lab %s, device %s of host keeps losing its address %s.0.1, and gets it back a moment later.
The processes %s speak netlink there. Which of them takes the address away?`, lab, dev, n, strings.Join(shown, ", ")),
		Hints: []string{
			"A netlink request is sent with sendto(2): its bytes 4 and 5 are the type. RTM_NEWADDR is 20, RTM_DELADDR is 21, RTM_GETADDR is 22.",
			`fathom trace -e 'tracepoint:syscalls:sys_enter_sendto { @[comm, *(uint16 *)(args.buff + 4)] = count(); }' --for 3s`,
		},
		Answer: names[0],
		Why:    "it sends requests of type 21, RTM_DELADDR.",
	}, nil
}

// silentXSK: packets are redirected by the queue they come in at; the socket is bound to another. Which queue they come in
// at is a matter of the flow's hash, which the kernel seeds: the process finds it out and binds elsewhere.
func silentXSK(ctx context.Context, b *Bench) (p Problem, err error) {
	const queues = 4
	n, port, mac := b.Net(), b.Port(), fmt.Sprintf("02:00:00:00:%02x:02", b.IntN(256))
	lab, err := b.Lab(ctx, fmt.Sprintf("client:%s.0.1/24{dev=eth0 queues=%d} -- server:%s.0.2/24{dev=eth0 mac=%s queues=%d}", n, queues, n, mac, queues))
	if err != nil {
		return p, err
	}
	if _, err := b.Actor(b.Word(), lab, "client", "frames", "eth0", mac, n+".0.1", fmt.Sprintf("%s.0.2:%d", n, port)); err != nil {
		return p, err
	}
	truth := filepath.Join(b.Dir, ".queue")
	if _, err := b.Actor(b.Word(), lab, "server", "xsk", "eth0", strconv.Itoa(queues), truth); err != nil {
		return p, err
	}
	come, bound := 0, 0
	if err := b.await(ctx, truth, func(text string) bool {
		_, err := fmt.Sscan(text, &come, &bound)
		return err == nil
	}); err != nil {
		return p, err
	}
	return Problem{
		Text: fmt.Sprintf(`In lab %s, a process of server has an AF_XDP socket on eth0, bound to queue %d of %d, and an XDP program that gives packets to the
socket of the queue they come in at. client sends to %s.0.2 port %d all the time; the socket receives nothing.
At which queue do the packets come in?`, lab, bound, queues, n, port),
		Hints: []string{
			"The queue that the sender's device chose is the one at which they come in: a veth pair keeps it.",
			`fathom trace -e 'tracepoint:net:net_dev_start_xmit /str(args.name) == "eth0" && args.protocol == 0x800/ { @[args.queue_mapping] = count(); }' --for 3s`,
		},
		Answer: strconv.Itoa(come),
		Why:    "a socket gets what comes in at its own queue: bind to that queue, or steer the flow to the socket's.",
	}, nil
}
