package ir

// Eval computes a op b as BPF does.
func (op Alu) Eval(a, b int64) int64 {
	switch op {
	case Add:
		return a + b
	case Sub:
		return a - b
	case Mul:
		return a * b
	case And:
		return a & b
	case Or:
		return a | b
	case Xor:
		return a ^ b
	case Shl:
		return a << (uint64(b) & 63)
	case Shr:
		return int64(uint64(a) >> (uint64(b) & 63))
	case Sar:
		return a >> (uint64(b) & 63)
	}
	return op.divide(a, b)
}

// divide is Eval for what division by 0 and the least number need care in.
func (op Alu) divide(a, b int64) int64 {
	switch {
	case op == Div && b == 0, op == SDiv && b == 0:
		return 0
	case b == 0:
		return a
	case op == Div:
		return int64(uint64(a) / uint64(b))
	case op == Mod:
		return int64(uint64(a) % uint64(b))
	case op == SDiv && b == -1:
		return -a
	case op == SDiv:
		return a / b
	case b == -1:
		return 0
	}
	return a % b
}

// Commutes says if a op b is b op a.
func (op Alu) Commutes() bool { return op == Add || op == Mul || op == And || op == Or || op == Xor }

// Eval says if a c b holds.
func (c Cond) Eval(a, b int64) bool {
	ua, ub := uint64(a), uint64(b)
	switch c {
	case Eq:
		return a == b
	case Ne:
		return a != b
	case Lt:
		return ua < ub
	case Le:
		return ua <= ub
	case Gt:
		return ua > ub
	case Ge:
		return ua >= ub
	case SLt:
		return a < b
	case SLe:
		return a <= b
	case SGt:
		return a > b
	case SGe:
		return a >= b
	}
	return a&b != 0
}

// Extend cuts v to size bytes and extends it.
func Extend(v int64, size uint8, signed bool) int64 {
	sh := 64 - 8*uint(size)
	if signed {
		return v << sh >> sh
	}
	return int64(uint64(v) << sh >> sh)
}
