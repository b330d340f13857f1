// Package nic answers where packets come in and what becomes of them before they are anybody's: which interrupt, which CPU,
// which NAPI instance and queue (Map); whether a stage of the receive path loses packets or is about to (Judge); how long each
// stage takes and who makes it late (Latency); and what the kernel puts off: softirqs, tasklets, timers, work (Work).
//
// Maps and judgements are made of what netstate/live read. Latency and Work run programs of their own in the kernel, on raw
// tracepoints only: no kprobes are needed.
package nic

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/netstate/nic"
)

// Row is an interrupt with all that hangs on it, or queues that no interrupt is known of.
type Row struct {
	Vector *nic.Vector // nil: none is known
	Queues []*nic.Queue
	NAPIs  []uint32
	By     string // what says which queues: "name", "netlink", both with "+" between; "" if nothing does
}

// Map is a device's way from interrupts to queues.
type Map struct {
	*nic.Device
	Rows []Row
	// Findings say where sources disagree, or are silent about something that there must be.
	Findings []string
}

// NewMap joins what the sources said. The rows point into d.
func NewMap(d *nic.Device) *Map {
	m := &Map{Device: d}
	placed := map[*nic.Queue]bool{}
	for i := range d.Vectors {
		r := m.row(&d.Vectors[i])
		for _, q := range r.Queues {
			placed[q] = true
		}
		m.Rows = append(m.Rows, r)
	}
	for i := range d.Queues {
		if q := &d.Queues[i]; !placed[q] {
			r := Row{Queues: []*nic.Queue{q}}
			if q.NAPI != 0 {
				r.NAPIs = []uint32{q.NAPI}
			}
			m.Rows = append(m.Rows, r)
		}
	}
	m.checkVectors()
	m.checkQueues(placed)
	return m
}

// row finds the queues and NAPI instances of an interrupt.
func (m *Map) row(v *nic.Vector) Row {
	r := Row{Vector: v}
	var byNet, byName []*nic.Queue
	for _, n := range m.NAPIs {
		if n.IRQ != v.IRQ || v.IRQ == 0 {
			continue
		}
		r.NAPIs = append(r.NAPIs, n.ID)
		for i := range m.Queues {
			if m.Queues[i].NAPI == n.ID {
				byNet = append(byNet, &m.Queues[i])
			}
		}
	}
	for _, name := range v.Names {
		n, rx, tx := nic.QueueOfName(name)
		for i := range m.Queues {
			q := &m.Queues[i]
			if q.Index == n && (q.Dir == nic.RX && rx || q.Dir == nic.TX && tx) {
				byName = append(byName, q)
			}
		}
	}
	switch {
	case len(byNet) > 0 && len(byName) > 0:
		r.Queues, r.By = byNet, "name+netlink"
		if !slices.Equal(sorted(byNet), sorted(byName)) {
			r.By = "netlink"
			m.find("irq %d: netdev netlink says it serves %s, its name %s says %s", v.IRQ, names(byNet), strings.Join(v.Names, ", "), names(byName))
		}
	case len(byNet) > 0:
		r.Queues, r.By = byNet, "netlink"
	case len(byName) > 0:
		r.Queues, r.By = byName, "name"
		for _, q := range byName {
			if q.NAPI != 0 && !slices.Contains(r.NAPIs, q.NAPI) {
				r.NAPIs = append(r.NAPIs, q.NAPI)
				r.By = "name, NAPI by netlink"
			}
		}
	}
	return r
}

func (m *Map) find(format string, args ...any) {
	m.Findings = append(m.Findings, fmt.Sprintf(format, args...))
}

func sorted(qs []*nic.Queue) []*nic.Queue {
	out := slices.Clone(qs)
	slices.SortFunc(out, func(a, b *nic.Queue) int { return cmp.Or(cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.Index, b.Index)) })
	return out
}

// names writes queues: "rx-0 tx-0".
func names(qs []*nic.Queue) string {
	var out []string
	for _, q := range qs {
		out = append(out, string(q.Dir)+"-"+strconv.Itoa(q.Index))
	}
	return strings.Join(out, " ")
}

// checkVectors compares sysfs with /proc/interrupts and /proc/irq.
func (m *Map) checkVectors() {
	var astray []string
	for i := range m.Vectors {
		v := &m.Vectors[i]
		switch {
		case v.Chip == "" && v.Mode == "intx":
			m.find("irq %d: the function has it by its INTx pin, and no driver asked for it: /proc/interrupts does not list it", v.IRQ)
		case v.Chip == "":
			m.find("irq %d: sysfs lists it in msi_irqs, /proc/interrupts does not: the message was allocated, no handler was asked for", v.IRQ)
		case len(v.Names) == 0:
			m.find("irq %d: no handler has asked for it", v.IRQ)
		}
		if v.PCI != "" && m.PCI != "" && v.PCI != m.PCI {
			m.find("irq %d: /proc/interrupts has it at %s, sysfs at %s", v.IRQ, v.PCI, m.PCI)
		}
		if len(outside(v.Effective, v.Wanted)) > 0 && v.Wanted != "" {
			astray = append(astray, strconv.Itoa(v.IRQ))
		}
		if out := outside(v.Wanted, v.Hint); v.Hint != "" && len(out) > 0 && len(nic.CPUs(v.Wanted)) < len(nic.CPUs(v.Hint)) {
			m.find("irq %d: the driver proposes CPUs %s (affinity_hint), %s was set", v.IRQ, v.Hint, v.Wanted)
		}
	}
	if len(astray) > 0 {
		m.find("irq %s: effective_affinity is not among the CPUs that are wanted: some controllers move an interrupt when it comes the next time, or the CPU is offline", strings.Join(astray, ", "))
	}
}

// outside gives the CPUs of a list that are not in another.
func outside(list, in string) (out []int) {
	have := nic.CPUs(in)
	for _, c := range nic.CPUs(list) {
		if !slices.Contains(have, c) {
			out = append(out, c)
		}
	}
	return out
}

// checkQueues compares the counts of queues of all sources, and looks for queues and NAPI instances that nothing leads to.
func (m *Map) checkQueues(placed map[*nic.Queue]bool) {
	for _, dir := range []nic.Dir{nic.RX, nic.TX} {
		var sysfs, net int
		for _, q := range m.Queues {
			if q.Dir == dir && q.Sysfs {
				sysfs++
			}
			if q.Dir == dir && q.Net {
				net++
			}
		}
		if sysfs != net && net > 0 && sysfs > 0 {
			m.find("%s queues: sysfs lists %d, netdev netlink %d", dir, sysfs, net)
		}
		if c := m.Channels; c != nil && sysfs > 0 {
			n := int(c.Combined + c.RX)
			if dir == nic.TX {
				n = int(c.Combined + c.TX)
			}
			if n > 0 && n != sysfs {
				m.find("%s queues: sysfs lists %d, the driver says it uses %d channels (ethtool -l)", dir, sysfs, n)
			}
		}
	}
	m.checkSilent(placed)
}

func (m *Map) checkSilent(placed map[*nic.Queue]bool) {
	var lone []*nic.Queue
	for i := range m.Queues {
		if !placed[&m.Queues[i]] {
			lone = append(lone, &m.Queues[i])
		}
	}
	switch {
	case len(m.Vectors) > 0 && len(lone) > 0:
		m.find("%s: no source says which interrupt serves them: the handlers' names do not, and the driver does not tell netdev netlink", names(lone))
	case len(m.Vectors) == 0 && m.PCI != "":
		m.find("the PCI function has no interrupt: the device is down, or the driver polls")
	}
	var unlinked []string
	for _, n := range m.NAPIs {
		if n.IRQ == 0 && !slices.ContainsFunc(m.Queues, func(q nic.Queue) bool { return q.NAPI == n.ID }) {
			unlinked = append(unlinked, strconv.FormatUint(uint64(n.ID), 10))
		}
	}
	switch list := strings.Join(unlinked, ", "); {
	case len(unlinked) > 0 && len(m.Vectors) > 0:
		m.find("NAPI %s: the driver says neither which interrupt nor which queue they are of; fathom nic --latency sees it when packets come", list)
	case len(unlinked) > 0:
		m.find("NAPI %s: the driver does not say which queue they are of", list)
	}
	mapped := slices.ContainsFunc(m.NAPIs, func(n nic.NAPI) bool { return n.IRQ != 0 })
	if len(m.NAPIs) > 0 && len(m.Vectors) > 0 && !mapped {
		m.find("the driver does not tell netdev netlink the interrupts of its NAPI instances: queues are known by the handlers' names")
	}
}
