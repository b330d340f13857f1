package packet

import (
	"fmt"
	"strings"
)

// CgroupProg is a BPF program on a cgroup that sees the packets of its sockets.
type CgroupProg struct {
	Cgroup string `json:"cgroup"` // its path below the root of the hierarchy, "/" for that
	Way    string `json:"way"`    // "ingress" or "egress"
	ID     uint32 `json:"id"`
	Name   string `json:"name,omitempty"`
}

// covers says if a cgroup's programs see what the processes of another send: those below it.
func (c CgroupProg) covers(cgroup string) bool {
	return c.Cgroup == "/" || c.Cgroup == cgroup || strings.HasPrefix(cgroup, c.Cgroup+"/")
}

// cgroupDropped: a program on the cgroup of the socket (__cgroup_bpf_run_filter_skb in kernel/bpf/cgroup.c). Which of several
// it was, the kernel does not say.
func cgroupDropped(s *scene) *finding {
	way := "ingress"
	if s.reason("BPF_CGROUP_EGRESS") {
		way = "egress"
	}
	var found []CgroupProg
	for _, c := range s.rec.CgroupProgs {
		if c.Way == way && (way == "ingress" || s.flow.Cgroup == "" || c.covers(s.flow.Cgroup)) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return &finding{culprit: Culprit{"kind": "cgroup_bpf", "netns": s.ns(), "parent": way},
			cause: fmt.Sprintf("a BPF program on the cgroup of the socket drops it at %s; it is gone by now", way), fix: "bpftool cgroup tree"}
	}
	c := found[len(found)-1] // the innermost
	return &finding{culprit: Culprit{"kind": "cgroup_bpf", "netns": s.ns(), "parent": way, "cgroup": c.Cgroup, "id": c.ID, "name": c.Name},
		certain: len(found) == 1, fix: fmt.Sprintf("bpftool cgroup show %s; detach program %d, or have it let this pass", c.Cgroup, c.ID),
		cause: fmt.Sprintf("the BPF program %s (id %d) on cgroup %s drops it at %s", c.Name, c.ID, c.Cgroup, way)}
}
