package packets

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/netstate/changes"
)

// mostCgroups is how many cgroups are asked for their programs.
const mostCgroups = 4096

// cgroupProgs lists the programs that see the packets of cgroups' sockets.
func cgroupProgs() (out []packet.CgroupProg) {
	root := changes.CgroupRoot()
	if root == "" {
		return nil
	}
	n := 0
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // gone meanwhile, or closed to us: what else there is
		}
		if n++; n > mostCgroups {
			return fs.SkipAll
		}
		out = append(out, progsOf(path, "/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/"))...)
		return nil
	})
	return out
}

// progsOf asks one cgroup.
func progsOf(folder, name string) (out []packet.CgroupProg) {
	f, err := os.Open(folder)
	if err != nil {
		return nil
	}
	defer f.Close()
	for _, way := range []struct {
		name string
		at   ebpf.AttachType
	}{{"ingress", ebpf.AttachCGroupInetIngress}, {"egress", ebpf.AttachCGroupInetEgress}} {
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: way.at})
		if err != nil {
			continue
		}
		for _, at := range r.Programs {
			c := packet.CgroupProg{Cgroup: name, Way: way.name, ID: uint32(at.ID)}
			if p, err := ebpf.NewProgramFromID(at.ID); err == nil {
				if info, err := p.Info(); err == nil {
					c.Name = info.Name
				}
				p.Close()
			}
			out = append(out, c)
		}
	}
	return out
}
