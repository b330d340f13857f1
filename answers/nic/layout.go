package nic

import (
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
)

// layout is where the members of kernel structs are that programs read, in bytes.
type layout struct {
	skbDev, skbIif, skbNAPI   int
	devIndex, devNet, netInum int
	napiID, napiDev           int
	skType, skNum             int
	skQueue, skProtocol       int
	udpQueue                  int
	taskPID, taskComm         int
	taskRuntime, taskFlags    int
	workFunc, pwqWQ, wqName   int
	timerFunc, hrtimerFunc    int
	taskletFunc               int
	actionName, actionHandler int
	actionIRQ                 int
	limits                    bool // the next three are known
	pwqActive, pwqMax, wqMax  int  // pwqMax is -1 where the workqueue has its limit itself (since 6.9)
	pwqPool                   int
	poolWorkers, poolIdle     int
}

// finder looks members up by the running kernel's types.
type finder struct {
	types ctype.Lookup
	err   error
}

// at gives the offset of a member through members that are structs themselves; the first that is missing is the error.
func (f *finder) at(name string, path ...string) int {
	off, err := member(f.types, name, path...)
	if err != nil && f.err == nil {
		f.err = err
	}
	return off
}

func newLayout(types ctype.Lookup) (*layout, error) {
	f := &finder{types: types}
	l := &layout{
		skbDev: f.at("sk_buff", "dev"), skbIif: f.at("sk_buff", "skb_iif"), skbNAPI: f.at("sk_buff", "napi_id"),
		devIndex: f.at("net_device", "ifindex"), devNet: f.at("net_device", "nd_net", "net"), netInum: f.at("net", "ns", "inum"),
		napiID: f.at("napi_struct", "napi_id"), napiDev: f.at("napi_struct", "dev"),
		skType: f.at("sock", "sk_type"), skNum: f.at("sock", "__sk_common", "skc_num"),
		skQueue: f.at("sock", "sk_receive_queue", "qlen"), skProtocol: f.at("sock", "sk_protocol"), udpQueue: f.at("udp_sock", "reader_queue", "qlen"),
		taskPID: f.at("task_struct", "pid"), taskComm: f.at("task_struct", "comm"),
		workFunc: f.at("work_struct", "func"), pwqWQ: f.at("pool_workqueue", "wq"), wqName: f.at("workqueue_struct", "name"),
		taskRuntime: f.at("task_struct", "se", "sum_exec_runtime"), taskFlags: f.at("task_struct", "flags"),
		timerFunc: f.at("timer_list", "function"), hrtimerFunc: f.at("hrtimer", "function"),
		taskletFunc: f.at("tasklet_struct", "func"),
		actionName:  f.at("irqaction", "name"), actionHandler: f.at("irqaction", "handler"), actionIRQ: f.at("irqaction", "irq"),
	}
	l.limits = l.workLimits(types) == nil
	return l, f.err
}

// workLimits finds what bounds workqueues; a kernel that keeps it elsewhere is counted without.
func (l *layout) workLimits(types ctype.Lookup) error {
	f := &finder{types: types}
	l.pwqActive, l.pwqPool = f.at("pool_workqueue", "nr_active"), f.at("pool_workqueue", "pool")
	l.poolWorkers, l.poolIdle = f.at("worker_pool", "nr_workers"), f.at("worker_pool", "nr_idle")
	var err error
	if l.pwqMax, err = member(types, "pool_workqueue", "max_active"); err != nil {
		l.pwqMax, l.wqMax = -1, f.at("workqueue_struct", "max_active")
	}
	return f.err
}

func member(types ctype.Lookup, name string, path ...string) (off int, err error) {
	t, err := types.ByName(ctype.KindStruct, name)
	if err != nil {
		return 0, fmt.Errorf("struct %s: %w", name, err)
	}
	for _, p := range path {
		s, ok := ctype.Strip(t).(*ctype.Struct)
		m, found := ctype.Member{}, false
		if ok {
			m, found = s.Member(p)
		}
		if !found {
			return 0, fmt.Errorf("struct %s has no member %v", name, path)
		}
		off += m.BitOff / 8
		t = m.Type
	}
	return off, nil
}
