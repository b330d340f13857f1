// Package attach puts small BPF programs on a network's devices, for faults and exercises: programs of XDP and of traffic
// control with one answer for all packets, one that gives packets to AF_XDP sockets, and one on a cgroup. What it attaches goes when it is
// closed, or with its process.
package attach

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// Answers of XDP programs (enum xdp_action of include/uapi/linux/bpf.h) and of traffic control (pkt_cls.h).
const (
	XDPAborted = 0
	XDPDrop    = 1
	XDPPass    = 2
	TCShot     = 2
)

// Attached is a program on a device.
type Attached struct {
	prog *ebpf.Program
	link link.Link
	maps []*ebpf.Map
}

// Close takes the program away.
func (a *Attached) Close() error {
	var errs []error
	if a.link != nil {
		errs = append(errs, a.link.Close())
	}
	if a.prog != nil {
		errs = append(errs, a.prog.Close())
	}
	for _, m := range a.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// answers is a program that returns one value.
func answers(v int32) asm.Instructions { return asm.Instructions{asm.Mov.Imm(asm.R0, v), asm.Return()} }

// XDP attaches a program of one answer to a device of the namespace this thread is in; native is the driver's mode.
func XDP(dev, name string, answer int32, native bool) (*Attached, error) {
	return xdp(dev, native, &ebpf.ProgramSpec{Type: ebpf.XDP, Name: name, License: "GPL", Instructions: answers(answer)})
}

func xdp(dev string, native bool, spec *ebpf.ProgramSpec, maps ...*ebpf.Map) (*Attached, error) {
	a := &Attached{maps: maps}
	ifi, err := net.InterfaceByName(dev)
	if err == nil {
		a.prog, err = ebpf.NewProgram(spec)
	}
	if err == nil {
		mode := link.XDPGenericMode
		if native {
			mode = link.XDPDriverMode
		}
		a.link, err = link.AttachXDP(link.XDPOptions{Program: a.prog, Interface: ifi.Index, Flags: mode})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach XDP program to %s: %w", dev, err), a.Close())
	}
	return a, nil
}

// TCX attaches a program of one answer to a device's ingress or egress (Linux 6.6).
func TCX(dev, name string, answer int32, egress bool) (*Attached, error) {
	a := &Attached{}
	ifi, err := net.InterfaceByName(dev)
	if err == nil {
		a.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Name: name, License: "GPL", Instructions: answers(answer)})
	}
	if err == nil {
		at := ebpf.AttachTCXIngress
		if egress {
			at = ebpf.AttachTCXEgress
		}
		a.link, err = link.AttachTCX(link.TCXOptions{Program: a.prog, Interface: ifi.Index, Attach: at})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach tcx program to %s: %w", dev, err), a.Close())
	}
	return a, nil
}

// offDport is where the destination port of UDP is behind a header of IPv4 without options.
const offDport = 22

// CgroupEgress attaches a program to a cgroup that drops datagrams over IPv4 to one port, of all that its processes send.
func CgroupEgress(folder, name string, port uint16) (*Attached, error) {
	a := &Attached{}
	prog := asm.Instructions{ // the data begins with the network header (__cgroup_bpf_run_filter_skb in kernel/bpf/cgroup.c)
		asm.Mov.Imm(asm.R2, offDport),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 2),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Half),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.Mov.Imm(asm.R0, 0),
		asm.JEq.Imm(asm.R1, int32(port), "out"),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"),
		asm.Return().WithSymbol("out"),
	}
	var err error
	if a.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSKB, Name: name, License: "GPL", Instructions: prog, AttachType: ebpf.AttachCGroupInetEgress}); err == nil {
		a.link, err = link.AttachCgroup(link.CgroupOptions{Path: folder, Attach: ebpf.AttachCGroupInetEgress, Program: a.prog})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach program to cgroup %s: %w", folder, err), a.Close())
	}
	return a, nil
}

// Redirect attaches an XDP program that gives each packet to the AF_XDP socket of its queue in the map that is returned, or
// passes it; it counts packets by queue in a second map. Attached owns both.
func Redirect(dev string, queues int, native bool) (a *Attached, socks, seen *ebpf.Map, err error) {
	socks, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(queues)})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make map of sockets: %w", err)
	}
	seen, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(queues)})
	if err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("make map of counts: %w", err), socks.Close())
	}
	a, err = xdp(dev, native, &ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: redirect(socks, seen)}, socks, seen)
	return a, socks, seen, err
}

// redirect is: seen[ctx->rx_queue_index]++; return bpf_redirect_map(socks, ctx->rx_queue_index, XDP_PASS).
func redirect(socks, seen *ebpf.Map) asm.Instructions {
	const rxQueueIndex = 16 // offset in struct xdp_md
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, rxQueueIndex, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word),
		asm.LoadMapPtr(asm.R1, seen.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, socks.FD()).WithSymbol("pass"),
		asm.Mov.Reg(asm.R2, asm.R6),
		asm.Mov.Imm(asm.R3, XDPPass), // if there is no socket
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}
}
