package nic

import (
	"fmt"
	"strconv"
	"strings"
)

// Interrupts is /proc/interrupts (show_interrupts in kernel/irq/proc.c).
type Interrupts struct {
	CPUs []int // of the columns
	Rows []InterruptRow
}

// InterruptRow is a line of it.
type InterruptRow struct {
	Label  string // "38", or "NMI", "LOC", … of the architecture
	IRQ    int    // -1 of those that have no number
	Counts []uint64
	Chip   string   // "PCI-MSIX-0000:00:03.0", "PCI-MSI", "IO-APIC"
	HW     string   // the number in that controller, with the trigger: "1-edge"
	Names  []string // of the handlers; of the architecture's rows what they are
}

// ParseInterrupts reads it. Lines that are cut short have what they have.
func ParseInterrupts(text string) Interrupts {
	var out Interrupts
	head, rest, _ := strings.Cut(text, "\n")
	for _, w := range strings.Fields(head) {
		if n, err := strconv.Atoi(strings.TrimPrefix(w, "CPU")); err == nil && strings.HasPrefix(w, "CPU") {
			out.CPUs = append(out.CPUs, n)
		}
	}
	for line := range strings.Lines(rest) {
		label, line, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		r := InterruptRow{Label: label, IRQ: -1}
		if n, err := strconv.Atoi(label); err == nil && n >= 0 {
			r.IRQ = n
		}
		words := strings.Fields(line)
		for len(words) > 0 && len(r.Counts) < len(out.CPUs) {
			n, err := strconv.ParseUint(words[0], 10, 64)
			if err != nil {
				break
			}
			r.Counts, words = append(r.Counts, n), words[1:]
		}
		r.describe(words)
		out.Rows = append(out.Rows, r)
	}
	return out
}

// describe reads what follows the counts: the controller, the number in it, the handlers with commas between.
func (r *InterruptRow) describe(words []string) {
	switch {
	case r.IRQ < 0:
		r.Names = []string{strings.Join(words, " ")}
	case len(words) == 1:
		r.Chip = words[0]
	case len(words) > 1:
		r.Chip, r.HW = words[0], words[1]
		for n := range strings.SplitSeq(strings.Join(words[2:], " "), ", ") {
			if n != "" {
				r.Names = append(r.Names, n)
			}
		}
	}
}

// ByIRQ finds a line by the interrupt's number.
func (i *Interrupts) ByIRQ(irq int) (*InterruptRow, bool) {
	for k := range i.Rows {
		if i.Rows[k].IRQ == irq && irq >= 0 {
			return &i.Rows[k], true
		}
	}
	return nil, false
}

// Message gives the place in a PCI function's table of messages, and the function's address where the line has it. Since Linux
// 6.5 each function has a controller of its own, "PCI-MSIX-0000:00:03.0" with numbers from 0; before, one controller "PCI-MSI"
// counts as pci_msi_domain_calc_hwirq has it: index | device << 11 | domain << 27.
func (r *InterruptRow) Message() (index int, pci string, ok bool) {
	num, _, _ := strings.Cut(r.HW, "-")
	n, err := strconv.ParseUint(num, 10, 64)
	if err != nil {
		return -1, "", false
	}
	for _, prefix := range []string{"PCI-MSIX-", "PCI-MSI-", "IR-PCI-MSIX-", "IR-PCI-MSI-"} {
		if addr, found := strings.CutPrefix(r.Chip, prefix); found && strings.Count(addr, ":") == 2 {
			return int(n), addr, true
		}
	}
	if strings.TrimPrefix(r.Chip, "IR-") == "PCI-MSI" {
		dev := n >> 11 & 0xffff
		return int(n & 0x7ff), fmt.Sprintf("%04x:%02x:%02x.%d", n>>27, dev>>8, dev>>3&0x1f, dev&7), true
	}
	return -1, "", false
}

// QueueOfName reads which queues an interrupt's handler serves from the name that its driver gave it: "virtio2-input.0",
// "eth0-rx-1", "eth0-TxRx-3", "ens5-Tx-Rx-0", "mlx5_comp3@pci:0000:01:00.0", "eth0-rxtx-2". tx and rx say which directions;
// both are false for a name that says nothing of queues ("eth0", "virtio2-config").
func QueueOfName(name string) (queue int, rx, tx bool) {
	low := strings.ToLower(name)
	if n, ok := strings.CutPrefix(low, "mlx5_comp"); ok {
		n, _, _ = strings.Cut(n, "@")
		if q, err := strconv.Atoi(n); err == nil {
			return q, true, true
		}
	}
	end := len(low)
	for end > 0 && low[end-1] >= '0' && low[end-1] <= '9' {
		end--
	}
	q, err := strconv.Atoi(low[end:])
	if err != nil || end == 0 {
		return -1, false, false
	}
	word := strings.TrimRight(low[:end], "-._")
	for _, w := range []struct {
		suffix string
		rx, tx bool
	}{
		{"input", true, false}, {"output", false, true}, {"txrx", true, true}, {"tx-rx", true, true}, {"rxtx", true, true}, {"rx-tx", true, true},
		{"-rx", true, false}, {"-tx", false, true}, {"-q", true, true}, {"-queue", true, true}, {"-fp", true, true}, {"-ch", true, true},
	} {
		if strings.HasSuffix(word, w.suffix) {
			return q, w.rx, w.tx
		}
	}
	return -1, false, false
}

// CPUList writes the CPUs of a mask such as "00000000,00000003" (cpumask_pr_args, include/linux/cpumask.h) as a list: "0-1";
// "" if it has none.
func CPUList(mask string) (string, error) {
	var words []uint32
	for w := range strings.SplitSeq(strings.TrimSpace(mask), ",") {
		n, err := strconv.ParseUint(w, 16, 32)
		if err != nil {
			return "", fmt.Errorf("mask of CPUs %q: %w", mask, err)
		}
		words = append(words, uint32(n))
	}
	has := func(cpu int) bool {
		w := len(words) - 1 - cpu/32
		return w >= 0 && words[w]>>(cpu%32)&1 != 0
	}
	var out []string
	for cpu := 0; cpu < 32*len(words); cpu++ {
		if !has(cpu) {
			continue
		}
		first := cpu
		for has(cpu + 1) {
			cpu++
		}
		if first == cpu {
			out = append(out, strconv.Itoa(cpu))
			continue
		}
		out = append(out, fmt.Sprintf("%d-%d", first, cpu))
	}
	return strings.Join(out, ","), nil
}

// CPUs reads a list such as "0-1,4". What is no list gives the CPUs before it.
func CPUs(list string) (out []int) {
	const most = 1 << 14
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		a, b, ranged := strings.Cut(part, "-")
		lo, err := strconv.Atoi(a)
		hi := lo
		if ranged && err == nil {
			hi, err = strconv.Atoi(b)
		}
		if err != nil || lo < 0 || hi < lo || hi >= most {
			return out
		}
		for ; lo <= hi; lo++ {
			out = append(out, lo)
		}
	}
	return out
}
