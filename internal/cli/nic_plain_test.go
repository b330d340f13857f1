package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
)

// chatter sends datagrams to itself over lo until what it gives is called.
func chatter(t *testing.T) (stop func()) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		b := make([]byte, 100)
		for {
			_, err := c.WriteTo(b, c.LocalAddr())
			if err == nil {
				_, err = c.Read(b)
			}
			if err != nil {
				done <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return func() {
		c.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

// askNIC runs fathom nic, and gives what it wrote, and if it said no. none is what no kernel has for that device.
func askNIC(t *testing.T, args string, none bool) (text string, negative bool) {
	t.Helper()
	var out bytes.Buffer
	c := nicCommand()
	c.SetArgs(strings.Fields(args))
	c.SetOut(&out)
	c.SetErr(&out)
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(t.Context())
	negative = err == error(exitError{exitNegative})
	if none != errors.Is(err, feature.ErrUnsupported) || err != nil && !none && !negative {
		t.Fatalf("%s: %v\n%s", args, err, &out)
	}
	return out.String(), negative
}

// TestNICWithoutProbes: where functions cannot be probed, each question of fathom nic is answered by what tracepoints, sysfs and netlink
// tell, and what the answer lacks for that is said; of questions that need no probes nothing is said to lack.
func TestNICWithoutProbes(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.Ringbuf, ktest.NetNS, ktest.Iter)
	if ktest.Detect(ktest.Kprobe) == nil || ktest.Detect(ktest.Fentry) == nil {
		t.Skip("functions can be probed here")
	}
	defer chatter(t)()
	page, drawn := filepath.Join(t.TempDir(), "page.html"), filepath.Join(t.TempDir(), "drawn.json")
	for _, tt := range []struct {
		args string
		want []string // of the answer
		says []string // is said to be missing because functions cannot be probed: all of that, and no more
	}{
		{"lo -j", []string{`"type":"nic","dev":"lo"`, `"type":"queue"`}, nil},
		{"lo -v", []string{"lo  ", "feature   loopback: on [fixed]"}, nil},
		{"-j", []string{`"dev":"lo"`}, nil},
		{"lo --html " + page, []string{"lo  "}, nil},
		{"lo --regs", nil, nil}, // lo has none
		{"--health --for -j", []string{`"stage":"NET_RX"`, `"stage":"ksoftirqd"`, `"stage":"backlog"`, `"stage":"sockets"`, `"type":"health"`}, nil},
		{"lo --health --for -v", []string{"NET_RX", "ksoftirqd"}, nil},
		{"lo --latency --for --slow 1ns --chrome " + drawn + " -j", []string{`"type":"stage"`, `"stage":"socket → read"`, `"type":"latency"`}, nil},
		{"lo --latency --for", []string{"whole", "socket → read"}, nil},
		{"--work --for -j", []string{`"type":"softirq"`, `"NET_RX"`, `"type":"function"`, `"type":"work"`}, []string{"__tasklet_schedule", "__tasklet_hi_schedule"}},
		{"--work --for -v", []string{"NET_RX", "timer"}, []string{"__tasklet_schedule", "__tasklet_hi_schedule"}},
		{"--modes --for -j", []string{`"mode":"interrupt"`, `"mode":"deferred"`, `"mode":"busy"`, `"mode":"threaded"`, `"polls":`, `"type":"modes"`}, nil},
		{"--modes --for", []string{"interrupt", "threaded", "times are round trips"}, nil},
		{"--sockets -j", []string{`"proto":"netlink route"`, `"type":"sockets"`}, nil},
		{"--sockets --for -j", []string{`"proto":"netlink route"`, `"type":"sockets"`}, []string{"security_socket_post_create"}},
		{"--sockets --for -v", []string{"netlink route"}, []string{"security_socket_post_create"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var out string
			var lacks []string
			for window := 100 * time.Millisecond; ; window *= 2 { // what is asked for may not happen in a short one
				args := strings.ReplaceAll(tt.args, "--for", "--for "+window.String())
				var negative bool
				if out, negative = askNIC(t, args, len(tt.want) == 0); !strings.Contains(tt.args, "--for") {
					window = time.Minute
				}
				if negative && strings.Contains(args, "--latency") && window < time.Minute { // no packet came; --health may find that others lose some
					continue
				}
				lacks = slices.DeleteFunc(slices.Clone(tt.want), func(w string) bool { return strings.Contains(out, w) })
				if len(lacks) == 0 || window > 5*time.Second {
					break
				}
			}
			if len(lacks) > 0 {
				t.Errorf("there is no %q in\n%s", lacks, out)
			}
			for _, s := range tt.says {
				if !strings.Contains(out, "function "+s+" (functions cannot be probed here)") {
					t.Errorf("it is not said that %s cannot be probed:\n%s", s, out)
				}
			}
			if n := strings.Count(out, "cannot be probed"); n != len(tt.says) {
				t.Errorf("%d things cannot be probed, want %d:\n%s", n, len(tt.says), out)
			}
			for line := range strings.Lines(out) {
				if strings.HasSuffix(tt.args, "-j") && !json.Valid([]byte(line)) {
					t.Errorf("%q is no JSON", line)
				}
			}
		})
	}
	for file, want := range map[string]string{page: "<svg", drawn: "socket → read"} {
		if b, err := os.ReadFile(file); err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: %v, %d bytes without %q", file, err, len(b), want)
		}
	}
}
