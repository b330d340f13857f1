package filter

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/bpf"

	progs "github.com/fathom-trace/fathom/internal/oracle"
)

// expression is a line of testdata/expressions.txt.
type expression struct {
	link    Link
	text    string
	refused bool
	live    bool // for a capture on a device
}

// expressions reads the list.
func expressions(t *testing.T) []expression {
	data, err := os.ReadFile("testdata/expressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []expression
	var e expression
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "== "); ok {
			rest, e.refused = strings.CutPrefix(rest, "REFUSED ")
			e.link = linkNamed(rest)
			continue
		}
		e.text = line
		out = append(out, e)
	}
	return out
}

func linkNamed(s string) Link {
	for l := Ethernet; l <= Loop; l++ {
		if l.String() == s {
			return l
		}
	}
	panic("no link type " + s)
}

// tcpdump finds the oracle.
func tcpdump(t *testing.T) string { return progs.Path(t, "tcpdump") }

// libpcap compiles an expression with libpcap; refused is what it says if it does not.
func libpcap(path string, e expression, optimize bool) (prog []bpf.RawInstruction, refused string, err error) {
	args := []string{"-ddd", "-y", e.link.String()}
	if e.live {
		args = []string{"-ddd", "-i", "lo"}
	}
	if !optimize {
		args = append(args, "-O")
	}
	out, err := exec.Command(path, append(args, "--", e.text)...).Output()
	if err != nil {
		if x, ok := err.(*exec.ExitError); ok {
			return nil, string(x.Stderr), nil
		}
		return nil, "", err
	}
	lines := strings.Fields(string(out))
	for i := 1; i+3 < len(lines); i += 4 {
		var v [4]uint64
		for j := range v {
			if v[j], err = strconv.ParseUint(lines[i+j], 10, 32); err != nil {
				return nil, "", fmt.Errorf("parse program of %q: %w", e.text, err)
			}
		}
		prog = append(prog, bpf.RawInstruction{Op: uint16(v[0]), Jt: uint8(v[1]), Jf: uint8(v[2]), K: uint32(v[3])})
	}
	return prog, "", nil
}

// execute runs a classic program by the rules of libpcap's bpf_filter, with its backward jumps, independently of Match.
func execute(prog []bpf.RawInstruction, pkt []byte) bool { return executeMeta(prog, pkt, Meta{}) }

// executeMeta is execute in a kernel that knows m of the packet.
func executeMeta(prog []bpf.RawInstruction, pkt []byte, m Meta) bool {
	var a, x uint32
	var mem [16]uint32
	get := func(at uint64, n uint64) (v uint32, ok bool) {
		if at+n > uint64(len(pkt)) {
			return 0, false
		}
		for _, c := range pkt[at : at+n] {
			v = v<<8 | uint32(c)
		}
		return v, true
	}
	size := map[uint16]uint64{0: 4, 8: 2, 0x10: 1}
	for pc, budget := 0, 10000; budget > 0; budget-- {
		in := prog[pc]
		pc++
		src := in.K
		if in.Op&8 != 0 {
			src = x
		}
		ok := true
		switch in.Op & 7 {
		case 0, 1:
			var v uint32
			switch in.Op & 0xe0 {
			case 0x00:
				v = in.K
			case 0x20:
				if in.K >= metaBase {
					v = map[uint32]uint32{metaBase + 4: uint32(m.Type), metaBase + 8: m.Ifindex, metaBase + 44: uint32(m.TCI)}[in.K]
					if in.K == metaBase+48 && m.Tagged {
						v = 1
					}
					break
				}
				v, ok = get(uint64(in.K), size[in.Op&0x18])
			case 0x40:
				v, ok = get(uint64(in.K)+uint64(x), size[in.Op&0x18])
			case 0x60:
				v = mem[in.K]
			case 0x80:
				v = uint32(len(pkt))
			case 0xa0:
				v, ok = get(uint64(in.K), 1)
				v = v & 15 * 4
			}
			if in.Op&7 == 0 {
				a = v
			} else {
				x = v
			}
		case 2:
			mem[in.K] = a
		case 3:
			mem[in.K] = x
		case 4:
			a, ok = reference(in.Op&0xf0, a, src)
		case 5:
			yes := map[uint16]bool{0x10: a == src, 0x20: a > src, 0x30: a >= src, 0x40: a&src != 0}
			switch {
			case in.Op&0xf0 == 0:
				pc += int(int32(in.K))
			case yes[in.Op&0xf0]:
				pc += int(in.Jt)
			default:
				pc += int(in.Jf)
			}
		case 6:
			return in.K != 0
		case 7:
			if in.Op == 7 {
				x = a
			} else {
				a = x
			}
		}
		if !ok {
			return false
		}
	}
	return false
}

// reference is the arithmetic of bpf_filter.
func reference(op uint16, a, b uint32) (uint32, bool) {
	switch op {
	case 0x00:
		return a + b, true
	case 0x10:
		return a - b, true
	case 0x20:
		return a * b, true
	case 0x30, 0x90:
		if b == 0 {
			return 0, false
		}
		if op == 0x30 {
			return a / b, true
		}
		return a % b, true
	case 0x40:
		return a | b, true
	case 0x50:
		return a & b, true
	case 0x60:
		return uint32(uint64(a) << b), b < 32 || true
	case 0x70:
		return a >> b, true
	case 0x80:
		return -a, true
	}
	return a ^ b, true
}

// oracle is what libpcap makes of an expression.
type oracle struct {
	plain, optimized []bpf.RawInstruction
	refused          string
	never            string // what it says if it finds out that no packet matches
}

// oracles compiles all expressions with libpcap, several at a time.
func oracles(t *testing.T, path string, es []expression) []oracle {
	out := make([]oracle, len(es))
	errs := make([]error, len(es))
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				o := &out[i]
				if o.plain, o.refused, errs[i] = libpcap(path, es[i], false); errs[i] == nil && o.refused == "" {
					o.optimized, o.never, errs[i] = libpcap(path, es[i], true)
				}
			}
		})
	}
	for i := range es {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// byConstant says if libpcap complains about a constant operand.
func byConstant(msg string) bool {
	return strings.Contains(msg, "by zero") || strings.Contains(msg, "shift by more")
}

// TestLibpcap compares verdicts with libpcap's programs: ours as evaluated, as classic BPF, and without optimisation. Verdicts
// that libpcap's own optimiser changes are counted and left out: it drops loads that a short packet would have failed.
func TestLibpcap(t *testing.T) {
	path := tcpdump(t)
	const random = 250
	list := append(expressions(t), generated(1, random)...)
	c := &comparison{T: t, pool: map[Link][][]byte{}}
	p := packets{rand.New(rand.NewPCG(7, 8))}
	for l := Ethernet; l <= Loop; l++ {
		for range 1400 {
			c.pool[l] = append(c.pool[l], p.packet(l))
		}
	}
	for i, o := range oracles(t, path, list) {
		if c.refusals(list[i], o, i < len(list)-random) {
			c.verdictsOf(list[i], o)
		}
	}
	t.Logf("%d expressions, %d verdicts, %.1f %% matches; libpcap with and without its optimiser differ on %d; instructions: ours %d, libpcap's optimised %d, ratio %.2f",
		c.expressions, c.verdicts, 100*float64(c.matches)/float64(c.verdicts), c.disagree, c.ours, c.theirs, float64(c.ours)/float64(c.theirs))
}

// comparison counts.
type comparison struct {
	*testing.T
	pool map[Link][][]byte

	expressions, verdicts, matches, disagree int
	ours, theirs                             int // instructions
}

// refusals compares what is refused, and says if there are programs to compare. listed expressions are those written by hand.
func (c *comparison) refusals(e expression, o oracle, listed bool) bool {
	_, err := Compile(e.text, Options{Link: e.link})
	says := func(s string) bool { return err != nil && strings.Contains(err.Error(), s) }
	never := says("no packet can match")
	switch {
	case says("division by zero"): // by constants: libpcap's optimiser finds it most times
		if listed && !e.refused {
			c.Errorf("%v %q is refused: %v", e.link, e.text, err)
		}
		return false
	case byConstant(o.refused) && (err == nil || never): // it takes the constant index of tcp[0] for the operand
		return false
	case never && o.never == "":
		c.Logf("%v %q: only we find that no packet matches", e.link, e.text)
	case o.never != "" && !never && listed:
		c.Errorf("%v %q: libpcap finds that no packet matches", e.link, e.text)
	case o.never != "" && !never:
		c.Logf("%v %q: only libpcap finds that no packet matches", e.link, e.text)
	}
	refused := err != nil && !never
	if refused != (o.refused != "") || refused && listed && !e.refused {
		c.Errorf("%v %q: libpcap says %q, we say %v", e.link, e.text, strings.TrimSpace(o.refused), err)
		return false
	}
	return !refused
}

// verdictsOf compares programs on all packets.
func (c *comparison) verdictsOf(e expression, o oracle) {
	plain, err := Compile(e.text, Options{Link: e.link, Unoptimized: true})
	if err != nil {
		c.Fatal(err)
	}
	f, err := Compile(e.text, Options{Link: e.link})
	if err != nil {
		f = plain // no packet matches
	}
	raw, err := f.Classic()
	if err != nil {
		c.Fatalf("%q: %v", e.text, err)
	}
	dis, _ := bpf.Disassemble(raw)
	vm, err := bpf.NewVM(dis)
	if err != nil {
		c.Fatalf("%q: %v", e.text, err)
	}
	c.expressions++
	if o.never == "" && f != plain && !strings.Contains(e.text, "protochain") && !strings.Contains(e.text, "geneve") { // those it does not optimise
		c.ours, c.theirs = c.ours+len(raw), c.theirs+len(o.optimized)
	}
	bad := 0
	for j, pkt := range c.pool[e.link] {
		want := execute(o.plain, pkt)
		c.verdicts++
		if want {
			c.matches++
		}
		if o.never == "" && execute(o.optimized, pkt) != want {
			// A load that its optimiser drops is one that short packets fail: either verdict is libpcap's.
			c.disagree++
			continue
		}
		same := f.Match(pkt, len(pkt)) == want
		if j%4 == c.expressions%4 {
			n, err := vm.Run(pkt)
			same = same && err == nil && (n != 0) == want && plain.Match(pkt, len(pkt)) == want
		}
		if same {
			continue
		}
		if bad++; bad == 1 {
			c.Errorf("%v %q: libpcap %v, Match %v, unoptimized %v\n% x", e.link, e.text, want, f.Match(pkt, len(pkt)), plain.Match(pkt, len(pkt)), pkt)
		}
	}
	if bad > 1 {
		c.Errorf("%v %q: %d packets differ", e.link, e.text, bad)
	}
}

// TestMetadata compares with what libpcap compiles for a live capture, where a VLAN tag may be out of the packet.
func TestMetadata(t *testing.T) {
	path := tcpdump(t)
	r := packets{rand.New(rand.NewPCG(9, 9))}
	for _, text := range []string{
		"vlan", "vlan 100", "vlan 100 and ip", "vlan and tcp port 80", "vlan 100 and vlan 200", "vlan and vlan and ip", "vlan and host 10.0.0.1",
		"vlan 5 or vlan 100", "vlan and mpls and ip", "vlan and pppoes and tcp", "vlan 100 and ip[8] = 64", "vlan and tcp[13] & 2 != 0",
		"inbound", "outbound", "inbound and tcp", "ifindex 2", "not ifindex 2 and ip", "ip and vlan", "tcp or vlan and udp", "vlan and not ip",
	} {
		prog, refused, err := libpcap(path, expression{text: text, live: true}, false)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(refused, "ermission") || strings.Contains(refused, "permitted") {
			t.Skip("no permission to capture")
		}
		if refused != "" {
			t.Fatal(refused)
		}
		f, err := Compile(text, Options{Metadata: true})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := f.Classic()
		if err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			pkt := r.packet(Ethernet)
			m := Meta{Tagged: r.chance(2), Type: uint8(r.IntN(6)), Ifindex: uint32(r.IntN(4))}
			if m.Tagged {
				m.TCI = pick(r, []uint16{100, 200, 5, 0x2064})
			}
			want, got := executeMeta(prog, pkt, m), f.MatchMeta(pkt, len(pkt), m)
			if got != want || executeMeta(raw, pkt, m) != want {
				t.Errorf("%q: libpcap %v, Match %v for %+v, % x", text, want, got, m, pkt)
				break
			}
		}
	}
}
