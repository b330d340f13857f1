// Package expect is what a tool should say of a fault in a network, and how what it said is scored. It is plain data and
// touches no system: a fault's answer is written by who made the fault, in the form of the scenarios' expected.json, and is
// compared with the records of type "verdict" that fathom packet prints.
package expect

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Classes of faults.
const (
	Drop      = "drop"
	Errno     = "errno"      // refused before there was a packet
	Misroute  = "misroute"   // delivered, but to the wrong place
	FalseLoss = "false-loss" // an event that is no loss
)

// Answer is what is right. Namespaces are named by their role in the fault; [Lab] says which one that is.
type Answer struct {
	ID        string              `json:"id"`
	Class     string              `json:"class"`
	Sent      int                 `json:"sent"`
	Delivered *int                `json:"delivered"` // nil: some
	Errno     string              `json:"errno"`     // what the sender sees; "timeout" too
	Drops     map[string][]Event  `json:"drop"`      // what the kernel tells, by its release ("6.12")
	Counters  []Counter           `json:"counters"`  // what must have moved
	Culprit   map[string]any      `json:"culprit"`   // kind, and the fields that name the object
	Requires  []string            `json:"requires"`  // of the kernel
	Cause     string              `json:"cause"`     // for people
	Netns     string              `json:"netns"`     // where it happens; "": where the culprit is
	Devs      map[string][]string `json:"devs"`      // by role, where it may be said to happen; empty: not asked
	Dst       []string            `json:"dst"`       // addresses the traffic goes to, to tell it from other traffic
	Retries   bool                `json:"retries"`   // the sender sends again by itself: Sent is the least
}

// Event is an event of the kernel: the tracepoint, the function that calls it, the reason it gives, and how often.
type Event struct {
	Event    string `json:"event"`
	Function string `json:"function"` // "": any
	Reason   string `json:"reason"`
	Count    int    `json:"count"`
	Else     string `json:"-"` // the function where a kernel calls it when not in Function; "": none. See [Answer.Learn]
}

// Counter is a counter of a namespace's /proc/net, as "Udp.NoPorts", that moves by Min at least.
type Counter struct {
	Netns string `json:"netns"`
	Name  string `json:"name"`
	Min   int    `json:"min"`
}

// Lab says what names the roles have in one run.
type Lab struct {
	Netns  map[string]string // role to name of the namespace
	Kernel string            // release of the kernel it runs on
}

// stimulus finds who a scenario's shell script sends to, and how.
var (
	stimulusDst = regexp.MustCompile(`(?:--dst |ping .*?)(\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f:]+)`)
	stimulusTCP = regexp.MustCompile(`\$PY tcp `)
)

// Parse reads an expected.json. script is the text of its stimulus.sh, which says where the traffic goes.
func Parse(b []byte, script string) (Answer, error) {
	var a Answer
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("read expected.json: %w", err)
	}
	for _, m := range stimulusDst.FindAllStringSubmatch(script, -1) {
		a.Dst = append(a.Dst, m[1])
	}
	if len(a.Dst) == 0 && !strings.Contains(script, "--et ") { // frames of an EtherType go to no address
		a.Dst = []string{"10.77.0.2"} // what pkt.py frame sends to if nothing else is said
	}
	a.Retries = stimulusTCP.MatchString(script)
	return a, nil
}

// Events are the events expected on a kernel: of its release, else of the next older one that is described, else of any.
func (a Answer) Events(release string) (events []Event, described bool) {
	best := ""
	for k := range a.Drops {
		if older(k, release) && (best == "" || older(best, k)) {
			best = k
		}
	}
	if best != "" {
		return a.Drops[best], true
	}
	for _, e := range a.Drops {
		events = append(events, e...)
	}
	return events, len(a.Drops) > 0
}

// Learn takes, of events that kernels call in either of two functions, the one of the kernel that told of seen. Releases do
// not tell: what changed the place was carried into older ones, too.
func (a Answer) Learn(seen []Event) {
	in := func(as Event, function string) bool {
		return slices.ContainsFunc(seen, func(e Event) bool { return e.Event == as.Event && e.Reason == as.Reason && e.Function == function })
	}
	for _, events := range a.Drops {
		for i, e := range events {
			if e.Else != "" && !in(e, e.Function) && in(e, e.Else) {
				events[i].Function = e.Else
			}
		}
	}
}

// older says that release a is b, or before it.
func older(a, b string) bool {
	x, y := release(a), release(b)
	return x[0] < y[0] || x[0] == y[0] && x[1] <= y[1]
}

// release reads "6.12.117-amd64".
func release(s string) (n [2]int) {
	for i, f := range strings.SplitN(s, ".", 3) {
		if i < 2 {
			n[i], _ = strconv.Atoi(strings.TrimRight(f, "-+abcdefghijklmnopqrstuvwxyz"))
		}
	}
	return n
}

// suffix is what compilers add to the names of parts and variants of functions.
var suffix = regexp.MustCompile(`\.(constprop|isra|part|cold|llvm)(\.\d+)*`)

// Function gives a function's name in the source.
func Function(name string) string {
	name, _, _ = strings.Cut(name, "+")
	return suffix.ReplaceAllString(name, "")
}
