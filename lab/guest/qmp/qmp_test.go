package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}` + "\n"

// serve runs a fake QEMU on a unix socket: it greets, then answers each command with the lines answer gives, and hangs up
// when answer gives none.
func serve(t *testing.T, greet string, answer func(cmd string, id uint64) string) net.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Write([]byte(greet))
		sc := bufio.NewScanner(conn)
		for sc.Scan() {
			var m struct {
				Execute string
				ID      uint64
			}
			json.Unmarshal(sc.Bytes(), &m)
			out := fmt.Sprintf(`{"return": {}, "id": %d}`, m.ID)
			if m.Execute != "qmp_capabilities" {
				if out = answer(m.Execute, m.ID); out == "" {
					return
				}
			}
			conn.Write([]byte(out + "\r\n"))
		}
	})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func connect(t *testing.T, answer func(string, uint64) string) *Client {
	t.Helper()
	c, err := New(t.Context(), serve(t, greeting, answer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestExecute(t *testing.T) {
	c := connect(t, func(cmd string, id uint64) string {
		switch cmd {
		case "query-status":
			return fmt.Sprintf(`{"timestamp": {"seconds": 5, "microseconds": 7}, "event": "STOP", "data": {"a": 1}}`+"\n"+
				`{"return": {"status": "running"}, "id": %d}`, id)
		case "nosuch":
			return fmt.Sprintf(`{"id": %d, "error": {"class": "CommandNotFound", "desc": "The command nosuch has not been found"}}`, id)
		}
		return ""
	})
	got, err := c.Execute(t.Context(), "query-status", nil)
	if err != nil || string(got) != `{"status": "running"}` {
		t.Errorf("got %s, %v", got, err)
	}
	if ev := <-c.Events(); ev.Name != "STOP" || string(ev.Data) != `{"a": 1}` || !ev.Time.Equal(time.Unix(5, 7000)) {
		t.Errorf("event %+v", ev)
	}
	_, err = c.Execute(t.Context(), "nosuch", map[string]any{"x": 1})
	var refused *Error
	if !errors.As(err, &refused) || err.Error() != "qmp nosuch: The command nosuch has not been found (CommandNotFound)" {
		t.Error(err)
	}
	if _, err = c.Execute(t.Context(), "quit", nil); !errors.Is(err, ErrClosed) {
		t.Error("hang-up:", err)
	}
	if _, err = c.Execute(t.Context(), "quit", nil); !errors.Is(err, ErrClosed) {
		t.Error("after the end:", err)
	}
	if _, open := <-c.Events(); open {
		t.Error("events are still open")
	}
}

func TestExecuteConcurrent(t *testing.T) {
	c := connect(t, func(cmd string, id uint64) string { return fmt.Sprintf(`{"return": %q, "id": %d}`, cmd, id) })
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			cmd := fmt.Sprintf("c%d", i)
			if got, err := c.Execute(t.Context(), cmd, nil); err != nil || string(got) != `"`+cmd+`"` {
				t.Errorf("%s: got %s, %v", cmd, got, err)
			}
		})
	}
	wg.Wait()
}

func TestSilence(t *testing.T) {
	c := connect(t, func(string, uint64) string { return `{"event": "X"}` })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Execute(ctx, "stop", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestBadServers(t *testing.T) {
	for name, greet := range map[string]string{"garbage": "hello\n", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := New(ctx, serve(t, greet, nil)); err == nil || !strings.HasPrefix(err.Error(), "qmp greeting:") {
				t.Error(err)
			}
		})
	}
}

func TestLost(t *testing.T) {
	c := connect(t, func(_ string, id uint64) string {
		return strings.Repeat(`{"event": "X"}`+"\n", 70) + fmt.Sprintf(`{"return": {}, "id": %d}`, id)
	})
	if _, err := c.Execute(t.Context(), "x", nil); err != nil || c.Lost() != 6 {
		t.Error(err, c.Lost())
	}
}
