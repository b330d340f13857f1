package expect

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

const (
	answer = `{"id":"x","class":"drop","sent":5,"delivered":0,"errno":null,
		"drop":{"6.12":[{"event":"kfree_skb","function":"__udp4_lib_rcv","reason":"NO_SOCKET","count":5}],"6.18":[{"event":"kfree_skb","function":"udp_rcv","reason":"NO_SOCKET","count":5}]},
		"culprit":{"kind":"socket","netns":"b","proto":"udp","local":"0.0.0.0%d0:9","state":"wrong-device"},
		"counters":[{"netns":"b","name":"Udp.NoPorts","min":1}],"requires":[]}`
	right = `{"type":"verdict","class":"drop","flow":"udp 10.77.0.1:1 > 10.77.0.2:9","netns":"p1b","dev":"vb","function":"__udp4_lib_rcv.constprop.0","reason":"SKB_DROP_REASON_NO_SOCKET",
		"culprit":{"kind":"socket","netns":"p1b","proto":"UDP","local":"*%d0:9","state":"wrong-device"},"sent":5,"delivered":0,"count":5}`
)

// score is what a tool gets that says these verdicts.
func score(t *testing.T, verdicts ...string) Score {
	t.Helper()
	a, err := Parse([]byte(answer), "$A $PY send --dst 10.77.0.2 --port 9")
	if err != nil {
		t.Fatal(err)
	}
	var vs []Verdict
	for _, s := range verdicts {
		v, ok, err := ParseVerdict([]byte(s))
		if err != nil || !ok {
			t.Fatalf("%s: %v", s, err)
		}
		vs = append(vs, v)
	}
	return a.Score(Lab{Netns: map[string]string{"a": "p1a", "b": "p1b"}, Kernel: "6.12.1"}, vs)
}

func TestScore(t *testing.T) {
	change := func(old, new string) string { return strings.Replace(right, old, new, 1) }
	for _, tt := range []struct {
		name, verdict string
		want          string // of the four questions, those that are right
		why           string
	}{
		{"right", right, "cpoa", ""},
		{"class", change(`"drop"`, `"errno"`), "poa", `class is "errno", want "drop"`},
		{"namespace", change(`"netns":"p1b"`, `"netns":"p1a"`), "coa", `netns is "p1a", want "p1b"`},
		{"function", change("__udp4_lib_rcv", "tcp_v4_rcv"), "coa", "tcp_v4_rcv"},
		{"reason", change("NO_SOCKET", "UDP_CSUM"), "coa", "UDP_CSUM"},
		{"another object", change(`"kind":"socket"`, `"kind":"route"`), "cpa", "kind is route, want socket"},
		{"a field is missing", change(`,"state":"wrong-device"`, ""), "cpa", "state is , want wrong-device"},
		{"another port", change("d0:9", "d0:99"), "cpa", "local"},
		{"another device", change("%d0:9", "%d1:9"), "cpa", "local"},
		{"does not add up", change(`"count":5`, `"count":4`), "cpo", "do not add up"},
		{"too many sent", change(`"sent":5`, `"sent":6`), "cpo", "sent is 6, want 5"},
		{"nothing said of the count", change(`"sent":5,`, ""), "cpo", "missing"},
		{"other traffic", change("10.77.0.2:9", "10.77.0.21:9"), "", "no verdict about the traffic"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := score(t, tt.verdict)
			got := ""
			for _, q := range []struct {
				ok   bool
				name string
			}{{s.Class, "c"}, {s.Place, "p"}, {s.Object, "o"}, {s.Count, "a"}} {
				if q.ok {
					got += q.name
				}
			}
			if got != tt.want || !strings.Contains(strings.Join(s.Why, "; "), tt.why) {
				t.Errorf("right are %q, want %q; %v", got, tt.want, s.Why)
			}
		})
	}
}

// TestBeside: other traffic's verdicts cost nothing, a false one about the same packets costs the class.
func TestBeside(t *testing.T) {
	other := strings.NewReplacer("10.77.0.2:9", "10.99.0.1:9", `"drop"`, `"errno"`).Replace(right)
	if s := score(t, other, right); s.Points() != 4 {
		t.Errorf("beside other traffic: %v", s.Why)
	}
	lie := strings.NewReplacer(`"drop"`, `"misroute"`, "__udp4_lib_rcv", "ip_forward").Replace(right)
	if s := score(t, lie, right); s.Class || !s.Place {
		t.Errorf("beside a false verdict: %+v", s)
	}
}

func TestSame(t *testing.T) {
	for _, tt := range []struct {
		key  string
		a, b any
		want bool
	}{
		{"rule", "udp dport 9 counter drop", "udp dport 9 counter packets 5 bytes 300 drop", true},
		{"rule", "limit rate over 1/minute burst 5 packets drop", "udp dport 9 limit rate over 1/minute burst 5 packets counter drop", true},
		{"rule", "udp dport 9 counter drop", "udp dport 91 counter drop", false},
		{"rule", "udp dport 9 drop", "udp dport 9 drop comment \"x\"", true},
		{"value", "0x88b5", 34997.0, true},
		{"value", "1", 1.0, true},
		{"value", "1", "2", false},
		{"dst", "198.51.100.1", "198.51.100.1/32", true},
		{"dst", "198.51.100.1", "198.51.100.0/24", false},
		{"state", "FAILED", "failed", true},
		{"key", "net.ipv4.ip_forward", "net/ipv4/ip_forward", true},
		{"local", "0.0.0.0:9", "[::]:9", true},
		{"mtu", 1280.0, nil, false},
	} {
		if got := same(tt.key, tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %v and %v are the same: %t", tt.key, tt.a, tt.b, got)
		}
	}
}

func TestEvents(t *testing.T) {
	a, err := Parse([]byte(answer), "")
	if err != nil {
		t.Fatal(err)
	}
	for release, want := range map[string]string{"6.12.9-amd64": "__udp4_lib_rcv", "6.18.44-fc": "udp_rcv", "7.2": "udp_rcv", "6.17": "__udp4_lib_rcv"} {
		if e, ok := a.Events(release); !ok || e[0].Function != want {
			t.Errorf("%s: %v", release, e)
		}
	}
	if e, _ := a.Events("6.1"); len(e) != 2 {
		t.Errorf("of a kernel that is not described: %v", e)
	}
}

// TestLearn: what a kernel calls in either of two places is expected where this one does; without its word, in the first.
func TestLearn(t *testing.T) {
	for _, tt := range []struct{ seen, want string }{{"nf_hook_slow", "nf_hook_slow"}, {"nft_do_chain", "nft_do_chain"}, {"nf_hook_slow nft_do_chain", "nft_do_chain"}, {"", "nft_do_chain"}} {
		a := Answer{Class: Drop, Drops: map[string][]Event{"6.1": {{Event: "kfree_skb", Function: "nft_do_chain", Else: "nf_hook_slow"}}}}
		var seen []Event
		for _, f := range strings.Fields(tt.seen) {
			seen = append(seen, Event{Event: "kfree_skb", Function: f})
		}
		a.Learn(seen)
		if e, _ := a.Events("6.1.0-50-amd64"); e[0].Function != tt.want {
			t.Errorf("seen %q: %s expected, want %s", tt.seen, e[0].Function, tt.want)
		}
	}
}

func FuzzParseVerdict(f *testing.F) {
	f.Add([]byte(right), []byte(answer))
	f.Add([]byte(`{"type":"verdict","culprit":{"local":[1],"rule":null}}`), []byte(`{"culprit":{"rule":{}}}`))
	f.Fuzz(func(t *testing.T, verdict, answer []byte) {
		v, ok, err := ParseVerdict(verdict)
		a, aerr := Parse(answer, "")
		if err != nil || !ok || aerr != nil {
			return
		}
		s := a.Score(Lab{Netns: map[string]string{"b": "x"}}, []Verdict{v})
		if s.Points() < 4 && len(s.Why) == 0 || !json.Valid(answer) || !slices.Contains([]int{0, 1, 2, 3, 4}, s.Points()) {
			t.Errorf("%+v", s)
		}
	})
}
