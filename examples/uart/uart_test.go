package uart_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/fathom-trace/fathom/examples/uart"
)

// Both drivers send and receive the same bytes; one has the processor all the time, the other for some ticks of each byte.
func Example() {
	out, in := []byte("to the line"), []byte("from there")
	for _, how := range []string{"polled", "interrupt"} {
		u := &uart.UART{Period: 100}
		u.Feed(in)
		var d uart.Driver = uart.Polled{U: u}
		if how == "interrupt" {
			d = uart.Interrupted{U: u, Latency: 5}
		}
		got, c := d.Run(out, len(in))
		fmt.Printf("%-9s  sent %q, got %q: %d %% of the processor\n", how, u.Line, got, 100*c.Busy/c.Ticks)
	}
	// Output:
	// polled     sent "to the line", got "from there": 100 % of the processor
	// interrupt  sent "to the line", got "from there": 3 % of the processor
}

// TestLate: a handler that comes later than a byte takes loses what came, and sends slowly, but garbles nothing.
func TestLate(t *testing.T) {
	in := bytes.Repeat([]byte("x"), 50)
	for _, tt := range []struct {
		latency int
		lost    bool
	}{{0, false}, {90, false}, {150, true}, {1000, true}} {
		u := &uart.UART{Period: 100}
		u.Feed(in)
		got, c := uart.Interrupted{U: u, Latency: tt.latency}.Run([]byte("abc"), len(in))
		if lost := u.Overrun > 0; lost != tt.lost || len(got)+u.Overrun != len(in) || string(u.Line) != "abc" || u.Garbled != 0 {
			t.Errorf("latency %d: got %d of %d, %d lost, sent %q in %d ticks, %d garbled", tt.latency, len(got), len(in), u.Overrun, u.Line, c.Ticks, u.Garbled)
		}
	}
}

// TestPolled: who asks often enough loses nothing; one who asks for each byte in vain pays with accesses.
func TestPolled(t *testing.T) {
	u := &uart.UART{Period: 100}
	in := bytes.Repeat([]byte("x"), 50)
	u.Feed(in)
	got, c := uart.Polled{U: u}.Run(nil, len(in))
	if len(got) != len(in) || u.Overrun != 0 || u.Accesses < 50*len(in) || c.Busy != c.Ticks {
		t.Errorf("got %d of %d, %d lost, %d accesses, %+v", len(got), len(in), u.Overrun, u.Accesses, c)
	}
	fast := &uart.UART{Period: 2}
	fast.Feed(in)
	if got, _ := (uart.Polled{U: fast}).Run(nil, len(in)); len(got)+fast.Overrun != len(in) {
		t.Errorf("a line faster than the driver: got %d, lost %d of %d", len(got), fast.Overrun, len(in))
	}
}

// TestBusy: what is written while a byte is being sent is lost.
func TestBusy(t *testing.T) {
	u := &uart.UART{Period: 3}
	u.Write(uart.TXBuffer, 'a')
	u.Write(uart.TXBuffer, 'b')
	for range 3 {
		u.Tick()
	}
	if string(u.Line) != "a" || u.Garbled != 1 || u.Read(uart.TXStatus) != 0 || u.Read(uart.RXStatus) != 0 {
		t.Errorf("%q, %d garbled", u.Line, u.Garbled)
	}
}
