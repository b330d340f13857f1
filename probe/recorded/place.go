package recorded

import (
	"fmt"

	"github.com/fathom-trace/fathom/lang/check"
)

// limit is a row of the table of functions that a recording answers otherwise than a running kernel. What is not in it is
// exact: it computes, prints, or reads the event.
type limit struct {
	names bool   // exact if the recording has the names of tasks
	stack string // exact if the recording has events of this name, each the stack of the one before it
	why   string // "" if names or stack
}

const (
	notRecorded = "it was not recorded: a recording has the events' fields, the time, the CPU and the task"
	hasGoneOn   = "the kernel has gone on since: its memory is not in the recording"
	thisHost    = "it is about the machine that fathom runs on now, not what was recorded"
	noChange    = "what was recorded cannot be changed"
)

var limits = map[string]limit{
	"comm": {names: true}, "pid": {names: true},

	"uid": {why: notRecorded}, "gid": {why: notRecorded}, "username": {why: notRecorded}, "cgroup": {why: notRecorded}, "jiffies": {why: notRecorded},
	"numaid": {why: notRecorded}, "usermode": {why: notRecorded}, "cpid": {why: notRecorded}, "reg": {why: notRecorded},
	"ppid": {why: notRecorded}, "pcomm": {why: notRecorded}, "leader_tid": {why: notRecorded}, "leader_comm": {why: notRecorded},
	"kstack": {stack: "kernel_stack"}, "ustack": {stack: "user_stack"}, "dw_ustack": {why: "the memory of stacks was not recorded; ustack has what fathom record --stack user found"},
	"curtask": {why: hasGoneOn}, "kaddr": {why: hasGoneOn}, "percpu_kaddr": {why: hasGoneOn}, "path": {why: hasGoneOn}, "socket_cookie": {why: hasGoneOn},
	"usym": {why: hasGoneOn}, "uaddr": {why: hasGoneOn}, "skboutput": {why: hasGoneOn},
	"time": {why: "it tells what time it is now; strftime(\"%H:%M:%S\", nsecs) tells that of the event"},
	"cat":  {why: thisHost}, "system": {why: thisHost}, "cgroup_path": {why: thisHost}, "cgroupid": {why: thisHost}, "debugf": {why: thisHost},
	"signal": {why: noChange}, "signal_thread": {why: noChange}, "override": {why: noChange}, "write_user": {why: noChange}, "unwatch": {why: noChange},
}

// NoProbe implements check.Place.
func (w *World) NoProbe(p check.AttachPoint) string {
	switch p.Provider.Name {
	case "begin", "end", "tracepoint":
		return ""
	}
	return fmt.Sprintf("%s: nothing happens in a recording but what was recorded: %s", p.Provider.Name, w.few())
}

// NoFunc implements check.Place.
func (w *World) NoFunc(f *check.Func, _ int, _ check.Target) string {
	l, limited := limits[f.Name]
	switch {
	case !limited:
		return ""
	case l.names && (w.t.Tasks != nil || w.named()):
		return ""
	case l.stack != "" && w.by["ftrace:"+l.stack] != nil:
		return ""
	case l.stack != "":
		return "these stacks were not recorded: fathom record --stack kernel,user"
	case l.names:
		return "the recording has no names of tasks; tid is there"
	}
	return l.why
}
