package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/fault/expect"
)

// dropsProgram counts what the kernel says of packets that it drops, by function, reason and namespace: that of the
// packet's device, else that of its socket. A device that is none (a packet in a socket's queue has something else there)
// reads as 0.
const dropsProgram = `tracepoint:skb:kfree_skb {
	$s = (struct sk_buff *)args.skbaddr;
	$in = (uint32)0;
	if ((uint64)$s->dev != 0) { $in = $s->dev->nd_net.net->ns.inum; } else if ((uint64)$s->sk != 0) { $in = $s->sk->__sk_common.skc_net.net->ns.inum; }
	@drops[ksym(args.location), args.reason, $in] = count();
}
tracepoint:xdp:xdp_exception { @xdp["xdp_exception"] = count(); }
tracepoint:xdp:xdp_redirect_err { @xdp["xdp_redirect_err"] = count(); }`

// Seen is what the kernel said of a scene.
type Seen struct {
	Events  []expect.Event // drops in its namespaces; of XDP, those of all scenes
	Missing []string       // what the answer has and the kernel did not say
	Err     error          // of sending
}

// asKernel asks the kernel itself what happens to scenes while do sends their traffic: the drops that it tells of in their
// namespaces, and counters.
func asKernel(ctx context.Context, fathom, release string, scenes []*Scene, out []Outcome, do func(context.Context) error) error {
	before := make([]counters, len(scenes))
	lines, _, err := beside(ctx, fathom, []string{"trace", "-j", "-e", dropsProgram}, `"type": "attached_probes"`, func(ctx context.Context, _ int) (err error) {
		for i, s := range scenes {
			if before[i], err = s.counters(); err != nil {
				return err
			}
		}
		return do(ctx)
	})
	if err != nil {
		return err
	}
	for i, s := range scenes {
		if err := s.compare(&out[i].Seen, release, lines, before[i]); err != nil {
			return err
		}
	}
	return nil
}

// compare finds what the answer has and the kernel did not say.
func (s *Scene) compare(seen *Seen, release string, lines []string, before counters) (err error) {
	if seen.Events, err = s.events(lines); err != nil {
		return err
	}
	s.Answer.Learn(seen.Events)
	want, _ := s.Answer.Events(release)
	for _, w := range want {
		if n := count(seen.Events, w); n < w.Count {
			seen.Missing = append(seen.Missing, fmt.Sprintf("%s %s %s", w.Event, w.Function, w.Reason))
		}
	}
	after, err := s.counters()
	if err != nil {
		return err
	}
	for _, c := range s.Answer.Counters {
		if d := after[c.Netns][c.Name] - before[c.Netns][c.Name]; d < c.Min {
			seen.Missing = append(seen.Missing, fmt.Sprintf("%s of %s moved by %d, want %d", c.Name, c.Netns, d, c.Min))
		}
	}
	return nil
}

// count adds up the events that are as one.
func count(events []expect.Event, as expect.Event) (n int) {
	for _, e := range events {
		if e.Event == as.Event && e.Function == as.Function && (e.Reason == as.Reason || as.Event != "kfree_skb") {
			n += e.Count
		}
	}
	return n
}

// events reads what the program printed.
func (s *Scene) events(lines []string) (events []expect.Event, err error) {
	ours := map[string]bool{"0": true}
	for _, ns := range s.ns {
		var st unix.Stat_t
		if err := unix.Fstat(ns.FD(), &st); err != nil {
			return nil, err
		}
		ours[strconv.FormatUint(st.Ino, 10)] = true
	}
	for _, l := range lines {
		var rec struct {
			Type string                    `json:"type"`
			Data map[string]map[string]int `json:"data"`
		}
		if json.Unmarshal([]byte(l), &rec) != nil || rec.Type != "map" {
			continue // data of another form
		}
		for _, k := range slices.Sorted(maps.Keys(rec.Data["@drops"])) {
			f := strings.Split(k, ",")
			if len(f) == 3 && ours[f[2]] {
				events = append(events, expect.Event{Event: "kfree_skb", Function: expect.Function(f[0]), Reason: strings.TrimPrefix(f[1], "SKB_DROP_REASON_"), Count: rec.Data["@drops"][k]})
			}
		}
		for _, k := range slices.Sorted(maps.Keys(rec.Data["@xdp"])) {
			events = append(events, expect.Event{Event: k, Count: rec.Data["@xdp"][k]})
		}
	}
	return events, nil
}

// counters are values by role and name.
type counters map[string]map[string]int

// counters reads /proc/net/snmp, netstat and snmp6 of all namespaces.
func (s *Scene) counters() (counters, error) {
	all := counters{}
	for role, ns := range s.ns {
		m := map[string]int{}
		all[role] = m
		err := ns.Do(func() error {
			for _, f := range []string{"snmp", "netstat", "snmp6"} {
				b, err := os.ReadFile(filepath.Join("/proc/thread-self/net", f))
				if err != nil {
					return err
				}
				parseCounters(m, string(b))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// parseCounters reads lines of names before lines of values ("Udp: InDatagrams …"), and lines of one ("Udp6NoPorts 5"),
// whose names become as the others': Udp6.NoPorts.
func parseCounters(m map[string]int, text string) {
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && !strings.HasSuffix(f[0], ":"):
			i := strings.IndexByte(f[0], '6') + 1
			m[f[0][:i]+"."+f[0][i:]], _ = strconv.Atoi(f[1])
		case names == nil:
			names = f
		default:
			for i := 1; i < len(f) && i < len(names); i++ {
				m[strings.TrimSuffix(f[0], ":")+"."+names[i]], _ = strconv.Atoi(f[i])
			}
			names = nil
		}
	}
}
