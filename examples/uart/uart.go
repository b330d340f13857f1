// Package uart is a serial port to learn from: a controller with four registers, and two drivers of it. One asks until the
// controller is ready, the other is told by an interrupt. Both run in a machine whose time is counted in ticks, so what each
// costs can be counted: accesses to the bus, ticks in which the processor could do nothing else, bytes lost.
//
// A real one (16550A, drivers/tty/serial/8250 of Linux) has a FIFO of 16 bytes, which is why it loses nothing to a driver that
// is some bytes late.
package uart

// Registers, by their address.
const (
	RXStatus = iota // 1: a byte is there
	RXBuffer        // that byte; to read it makes room
	TXStatus        // 1: a byte is being sent
	TXBuffer        // the byte to send; written while one is being sent, it is lost
)

// UART is the controller. A byte takes Period ticks on the line.
type UART struct {
	Period int
	IRQ    func() // the interrupt: a byte has come, or one has left; nil if nobody wants it
	Line   []byte // what has left

	Accesses int // of registers
	Overrun  int // bytes that came while one was still there
	Garbled  int // bytes that were written while one was being sent

	rx, tx         byte
	rxFull, txBusy bool
	left           int // ticks until the byte has left
	in             []byte
	next           int // ticks until the next byte has come
}

// Feed has bytes come, one each Period.
func (u *UART) Feed(b []byte) {
	if len(u.in) == 0 {
		u.next = u.Period
	}
	u.in = append(u.in, b...)
}

// Read reads a register.
func (u *UART) Read(reg int) byte {
	u.Accesses++
	switch {
	case reg == RXStatus && u.rxFull, reg == TXStatus && u.txBusy:
		return 1
	case reg == RXBuffer:
		u.rxFull = false
		return u.rx
	}
	return 0
}

// Write writes a register.
func (u *UART) Write(reg int, b byte) {
	u.Accesses++
	switch {
	case reg != TXBuffer:
	case u.txBusy:
		u.Garbled++
	default:
		u.tx, u.txBusy, u.left = b, true, u.Period
	}
}

// Tick lets a tick go by.
func (u *UART) Tick() {
	told := false
	if u.txBusy {
		if u.left--; u.left == 0 {
			u.Line, u.txBusy, told = append(u.Line, u.tx), false, true
		}
	}
	if len(u.in) > 0 {
		if u.next--; u.next == 0 {
			if u.rxFull {
				u.Overrun++
			}
			u.rx, u.rxFull, u.in, u.next, told = u.in[0], true, u.in[1:], u.Period, true
		}
	}
	if told && u.IRQ != nil {
		u.IRQ()
	}
}

// Idle says that nothing is on the line.
func (u *UART) Idle() bool { return !u.txBusy && len(u.in) == 0 && !u.rxFull }

// Cost is what a driver took of the processor.
type Cost struct {
	Ticks int // in all
	Busy  int // in which the processor was the driver's
}

// Driver sends bytes and hands on those that come, until as many came as are wanted.
type Driver interface {
	Run(send []byte, want int) (got []byte, c Cost)
}

// Polled asks the status registers over and over: an access takes a tick, and the processor does nothing else.
type Polled struct{ U *UART }

// Run implements [Driver].
func (p Polled) Run(send []byte, want int) (got []byte, c Cost) {
	step := func() { p.U.Tick(); c.Ticks++; c.Busy++ }
	for len(send) > 0 || len(got) < want || !p.U.Idle() {
		step()
		if len(send) > 0 && p.U.Read(TXStatus) == 0 {
			step()
			p.U.Write(TXBuffer, send[0])
			send = send[1:]
		}
		step()
		if p.U.Read(RXStatus) == 1 {
			step()
			got = append(got, p.U.Read(RXBuffer))
		} else if p.U.Idle() && len(send) == 0 { // what is wanted was lost
			return got, c
		}
	}
	return got, c
}

// Interrupted sleeps until the controller interrupts. Between the interrupt and its handler go Latency ticks: other interrupts,
// a section with interrupts off.
type Interrupted struct {
	U       *UART
	Latency int
}

// Run implements [Driver].
func (d Interrupted) Run(send []byte, want int) (got []byte, c Cost) {
	pending := -1 // ticks until the handler runs
	d.U.IRQ = func() {
		if pending < 0 {
			pending = d.Latency
		}
	}
	defer func() { d.U.IRQ = nil }()
	handler := func() {
		access := func() { c.Busy++ }
		if access(); d.U.Read(RXStatus) == 1 {
			access()
			got = append(got, d.U.Read(RXBuffer))
		}
		if len(send) > 0 {
			if access(); d.U.Read(TXStatus) == 0 {
				access()
				d.U.Write(TXBuffer, send[0])
				send = send[1:]
			}
		}
	}
	handler() // the first byte has nobody to tell that the controller is ready
	for len(send) > 0 || len(got) < want || !d.U.Idle() || pending >= 0 {
		if pending == 0 {
			handler()
		}
		pending = max(pending-1, -1)
		d.U.Tick()
		c.Ticks++
		if pending < 0 && d.U.Idle() && len(send) == 0 { // what is wanted was lost
			return got, c
		}
	}
	return got, c
}
