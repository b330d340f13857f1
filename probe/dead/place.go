package dead

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/lang/check"
)

// needs says what a function must have to be answered.
type needs uint8

const (
	never needs = iota // a dump cannot know it
	task               // an object that belongs to a task
	bare               // such an object, unless an argument says whose
)

// limit is a row of the table of functions that a dump answers otherwise than a running kernel. What is not in it is exact:
// it computes, reads the kernel's memory, or prints.
type limit struct {
	needs needs
	why   string // for never
}

const (
	noClock   = "a dump's clocks stand still; its last readings are in its memory: jiffies, ((struct rq *)percpu_kaddr(\"runqueues\", 0))->clock"
	thisHost  = "it is about the machine that fathom runs on, not the kernel that died"
	noUser    = "user stacks and symbols are in files that the dump does not have"
	noChange  = "a dead kernel cannot be changed"
	noProgram = "no program runs in a dead kernel"
)

var limits = map[string]limit{
	"pid": {needs: task}, "tid": {needs: task}, "comm": {needs: bare}, "curtask": {needs: task}, "uid": {needs: task}, "gid": {needs: task},
	"cgroup": {needs: task}, "cpu": {needs: task}, "kstack": {needs: task},
	"ppid": {needs: bare}, "pcomm": {needs: bare}, "leader_tid": {needs: bare}, "leader_comm": {needs: bare},

	"nsecs": {why: noClock}, "elapsed": {why: noClock}, "time": {why: noClock}, "tseries": {why: noClock},
	"strftime": {why: "the clocks it converts between stand still; struct timekeeper shadow_timekeeper has their last readings"},
	"numaid":   {why: "programs do not run on a node; percpu_kaddr(\"numa_node\", cpu) tells a CPU's"},
	"username": {why: "names of users are in files that the dump does not have; uid has the number"},

	"ustack": {why: noUser}, "dw_ustack": {why: noUser}, "usym": {why: noUser}, "uaddr": {why: noUser},
	"usermode": {why: noProgram}, "cpid": {why: noProgram},
	"cgroup_path": {why: thisHost}, "cgroupid": {why: thisHost}, "system": {why: thisHost}, "cat": {why: thisHost},
	"socket_cookie": {why: "a socket gets its cookie when it is first asked for: sk->__sk_common.skc_cookie has it"},
	"debugf":        {why: "it writes to the trace pipe of a kernel that runs"},
	"signal":        {why: noChange}, "signal_thread": {why: noChange}, "override": {why: noChange}, "write_user": {why: noChange},
	"unwatch": {why: noChange}, "skboutput": {why: "it takes a packet from where it passes, and nothing passes"},
}

// NoProbe implements check.Place.
func (w *World) NoProbe(p check.AttachPoint) string {
	switch p.Provider.Name {
	case "begin", "end", "iter":
		return ""
	}
	return fmt.Sprintf("%s: nothing happens in a dump: programs run over its objects (%s), and at begin and end", p.Provider.Name, names())
}

// NoFunc implements check.Place.
func (w *World) NoFunc(f *check.Func, args int, t check.Target) string {
	l, limited := limits[f.Name]
	if !limited {
		return ""
	}
	switch {
	case l.why != "":
		return l.why
	case l.needs == bare && args > 0:
		return ""
	}
	k, ok := find(t.Func)
	if t.Provider != "iter" || !ok {
		return fmt.Sprintf("nobody runs at %s; iter:task and others that walk what belongs to tasks have one", t.Provider)
	}
	if !k.tasks {
		return fmt.Sprintf("what %s walks belongs to no task", t.Name)
	}
	return ""
}

// names are the iterators that there are, as programs write them.
func names() string {
	var out []string
	for _, k := range kinds {
		out = append(out, "iter:"+k.name)
	}
	return strings.Join(out, ", ")
}
