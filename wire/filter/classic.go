package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// maxClassic is BPF_MAXINSNS: the kernel takes no longer program.
const maxClassic = 4096

// reach is how far a conditional jump of classic BPF goes.
const reach = 255

// classic lays the blocks out in their order. A jump that is too far goes through an unconditional one behind it.
func classic(order []*block, snap uint32) ([]bpf.RawInstruction, error) {
	at := make(map[*block]int, len(order))
	far := make([][2]bool, len(order)) // yes, no
	size := func(i int) int {
		b := order[i]
		n := len(b.code)
		switch {
		case b.end():
			return n + 1
		case b.jump == jAlways:
			if i+1 < len(order) && order[i+1] == b.yes {
				return n
			}
			return n + 1
		}
		n++
		for _, f := range far[i] {
			if f {
				n++
			}
		}
		return n
	}
	for changed := true; changed; {
		changed = false
		pc := 0
		for i, b := range order {
			at[b] = pc
			pc += size(i)
		}
		if pc > maxClassic {
			return nil, fmt.Errorf("lay out filter: %d instructions of classic BPF, the kernel takes %d", pc, maxClassic)
		}
		for i, b := range order {
			if b.end() || b.jump == jAlways {
				continue
			}
			from := at[b] + len(b.code) + 1
			for side, to := range []*block{b.yes, b.no} {
				if !far[i][side] && at[to]-from > reach {
					far[i][side], changed = true, true
				}
			}
		}
	}
	var out []bpf.RawInstruction
	for i, b := range order {
		for _, c := range b.code {
			out = append(out, bpf.RawInstruction{Op: c.op, K: c.k})
		}
		out = appendJump(out, b, at, far[i], snap, i+1 < len(order) && order[i+1] == b.yes)
	}
	return out, nil
}

// appendJump appends the end of a block; through says that yes follows at once.
func appendJump(out []bpf.RawInstruction, b *block, at map[*block]int, far [2]bool, snap uint32, through bool) []bpf.RawInstruction {
	pc := len(out) + 1 // behind the jump
	switch {
	case b.end() && b.verdict:
		return append(out, bpf.RawInstruction{Op: opRet, K: snap})
	case b.end():
		return append(out, bpf.RawInstruction{Op: opRet})
	case b.jump == jAlways && through:
		return out
	case b.jump == jAlways:
		return append(out, bpf.RawInstruction{Op: opJump | jAlways, K: uint32(at[b.yes] - pc)})
	}
	j := bpf.RawInstruction{Op: opJump | b.jump, K: b.k}
	if b.useX {
		j.Op, j.K = opJumpX|b.jump, 0
	}
	skip, n := [2]int{at[b.yes] - pc, at[b.no] - pc}, 0
	for side, f := range far {
		if f {
			skip[side] = n
			n++
		}
	}
	j.Jt, j.Jf = uint8(skip[0]), uint8(skip[1])
	out = append(out, j)
	for side, to := range []*block{b.yes, b.no} {
		if far[side] {
			out = append(out, bpf.RawInstruction{Op: opJump | jAlways, K: uint32(at[to] - len(out) - 1)})
		}
	}
	return out
}
