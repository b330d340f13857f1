package watch

import (
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
)

// layout is where the members of kernel structures are that programs read, in bytes.
type layout struct {
	skCookie, skQueuePrev, skFamily      int
	skbData, skbLen                      int
	taskParent, taskTgid, taskComm       int
	taskFlags, taskNsproxy, nsproxyNet   int
	netInum, netCleanup                  int
	taskCgroups, cssSetDfl, cgrpKn, knID int
	workFunc                             int
	ifaDADWork, ifaAddr                  int
}

// finder looks members up by the running kernel's types.
type finder struct {
	types ctype.Lookup
	err   error
}

// at gives the offset of a member through members that are structures themselves.
func (f *finder) at(name string, path ...string) int {
	t, err := f.types.ByName(ctype.KindStruct, name)
	if err != nil {
		if f.err == nil {
			f.err = fmt.Errorf("struct %s: %w", name, err)
		}
		return 0
	}
	off := 0
	for _, p := range path {
		s, ok := ctype.Strip(t).(*ctype.Struct)
		m, found := ctype.Member{}, false
		if ok {
			m, found = s.Member(p)
		}
		if !found {
			if f.err == nil {
				f.err = fmt.Errorf("struct %s has no member %v", name, path)
			}
			return 0
		}
		off += m.BitOff / 8
		t = m.Type
	}
	return off
}

func newLayout(types ctype.Lookup) (*layout, error) {
	f := &finder{types: types}
	l := &layout{
		skCookie: f.at("sock", "__sk_common", "skc_cookie"), skQueuePrev: f.at("sock", "sk_receive_queue", "prev"),
		skFamily: f.at("sock", "__sk_common", "skc_family"),
		skbData:  f.at("sk_buff", "data"), skbLen: f.at("sk_buff", "len"),
		taskParent: f.at("task_struct", "real_parent"), taskTgid: f.at("task_struct", "tgid"), taskComm: f.at("task_struct", "comm"),
		taskFlags: f.at("task_struct", "flags"), taskNsproxy: f.at("task_struct", "nsproxy"), nsproxyNet: f.at("nsproxy", "net_ns"),
		netInum: f.at("net", "ns", "inum"), netCleanup: f.at("net", "cleanup_list"),
		taskCgroups: f.at("task_struct", "cgroups"), cssSetDfl: f.at("css_set", "dfl_cgrp"), cgrpKn: f.at("cgroup", "kn"), knID: f.at("kernfs_node", "id"),
		workFunc:   f.at("work_struct", "func"),
		ifaDADWork: f.at("inet6_ifaddr", "dad_work"), ifaAddr: f.at("inet6_ifaddr", "addr"),
	}
	return l, f.err
}
