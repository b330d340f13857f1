// Package demo is fathom's main job on real traffic: two hosts that talk UDP and TCP, and the question which code paths
// of the kernel delivered their packets.
package demo

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"sort"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// The traffic: datagrams and bytes, known in advance.
const (
	datagrams    = 48
	datagramSize = 182
	tcpWrites    = 20
	tcpSize      = 1000
	port         = 4096
)

const devA, devB = "fathom-a", "fathom-b"

// program is the question. It names the devices, so that no other traffic of the machine is counted.
const program = `tracepoint:net:netif_receive_skb
/str(args.name, 16) == "` + devA + `" || str(args.name, 16) == "` + devB + `"/
{
	@hits[kstack(24)] = count();
	@bytes[kstack(24)] = sum(args.len);
}
`

// Path is one code path that delivered packets.
type Path struct {
	Hits, Bytes uint64
	Stack       []string // the innermost frame first, with offsets
}

// Run builds the hosts, sends, and writes the ranked table to w. Nothing is left behind.
func Run(ctx context.Context, w io.Writer, status io.Writer) error {
	pair, err := topology.NewPair(devA, devB)
	if err != nil {
		return err
	}
	defer pair.Close()
	fmt.Fprintf(status, "two network namespaces: %s %v -- %s %v\n", devA, pair.A.Addr, devB, pair.B.Addr)
	l, err := live.Open(live.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	users := usersym.New(usersym.Options{})
	defer users.Close()
	world := probe.NewWorld(l, users, 0)
	defer world.Close()
	sess, hits, bytes, err := load(world)
	if err != nil {
		return err
	}
	defer sess.Close()
	if _, err := sess.Attach(); err != nil {
		return err
	}
	fmt.Fprintf(status, "asking the kernel, and sending %d UDP datagrams of %d bytes and %d KB over TCP\n\n",
		datagrams, datagramSize, tcpWrites*tcpSize/1000)
	if err := talk(ctx, pair); err != nil {
		return err
	}
	sess.Detach()
	paths, err := read(sess, hits, bytes, l)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s", program)
	return table(w, paths)
}

func load(world *probe.World) (sess *probe.Session, hits, bytes *ir.Map, err error) {
	ncpu, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("count CPUs: %w", err)
	}
	c, diags := script.Compile(&syntax.Source{Name: "demo", Text: program}, check.Options{World: world}, build.Options{NumCPU: ncpu})
	for _, d := range diags {
		if d.Severity == syntax.Error {
			return nil, nil, nil, &diag.Error{What: "rank the paths", Because: d.Msg, Try: []string{"fathom doctor"}, Code: diag.ExitUnsupported}
		}
	}
	sess, err = probe.Load(c.Info, c.Prog, c.Obj, probe.Options{World: world})
	if err != nil {
		return nil, nil, nil, err
	}
	for _, m := range c.Prog.Maps {
		switch m.Name {
		case "@hits":
			hits = m
		case "@bytes":
			bytes = m
		}
	}
	return sess, hits, bytes, nil
}

// talk sends the traffic from a to b and waits until all of it has arrived.
func talk(ctx context.Context, p *topology.Pair) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	to, _ := netip.AddrFromSlice(p.B.Addr.To4())
	flow := traffic.Flow{From: p.A.NS, To: p.B.NS, Addr: netip.AddrPortFrom(to, port), Messages: datagrams, Size: datagramSize}
	if _, err := traffic.UDP(ctx, flow); err != nil {
		return err
	}
	flow.Messages, flow.Size = tcpWrites, tcpSize
	_, err := traffic.TCP(ctx, flow)
	return err
}

// read joins both maps by their stacks and names the frames.
func read(sess *probe.Session, hits, bytes *ir.Map, l *live.Live) ([]Path, error) {
	hs, err := sess.Entries(hits)
	if err != nil {
		return nil, err
	}
	bs, err := sess.Entries(bytes)
	if err != nil {
		return nil, err
	}
	sums := map[string]uint64{}
	for _, e := range bs {
		sums[string(e.Key)] = total(e)
	}
	var out []Path
	for _, e := range hs {
		p := Path{Hits: total(e), Bytes: sums[string(e.Key)]}
		n := min(int(word(e.Key))/8, (len(e.Key)-16)/8)
		for i := range n {
			if name, off, ok := l.Symbolise(word(e.Key[16+8*i:])); ok {
				p.Stack = append(p.Stack, fmt.Sprintf("%s+0x%x", name, off))
			}
		}
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Hits != out[j].Hits {
			return out[i].Hits > out[j].Hits
		}
		return strings.Join(out[i].Stack, "") < strings.Join(out[j].Stack, "")
	})
	return out, nil
}

func word(b []byte) uint64 {
	var n uint64
	for i := 7; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n
}

func total(e probe.Entry) uint64 {
	var n uint64
	for _, v := range e.Values {
		n += word(v)
	}
	return n
}

// table writes the paths, the busiest first.
func table(w io.Writer, paths []Path) error {
	var hits, bytes uint64
	for _, p := range paths {
		hits += p.Hits
		bytes += p.Bytes
	}
	fmt.Fprintf(w, "\n%8s %9s  path\n", "packets", "bytes")
	for _, p := range paths {
		lead := fmt.Sprintf("%8d %9d  ", p.Hits, p.Bytes)
		for _, f := range p.Stack {
			fmt.Fprintf(w, "%s%s\n", lead, f)
			lead = strings.Repeat(" ", len(lead))
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintf(w, "%d packets, %d bytes, %d paths\n", hits, bytes, len(paths))
	return err
}
