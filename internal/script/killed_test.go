package script

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// envVictim has the test binary trace until it is killed.
const envVictim = "FATHOM_TEST_VICTIM"

const victim = `tracepoint:raw_syscalls:sys_enter { @victim[comm] = count(); }
profile:hz:49 { @[kstack] = count(); } interval:s:1 { print(1); } software:page-faults:100 { @p = count(); }`

// TestVictim is what TestKilled kills; by itself it does nothing.
func TestVictim(t *testing.T) {
	if os.Getenv(envVictim) == "" {
		t.Skip("run by TestKilled")
	}
	Run(context.Background(), Options{Source: &syntax.Source{Name: "stdin", Text: victim}, Stdout: os.Stdout, Stderr: io.Discard, Notify: true})
}

// TestKilled kills a trace with kill -9 at several moments: nothing of it may stay in the kernel.
func TestKilled(t *testing.T) {
	ktest.Need(t, ktest.Tracepoint, ktest.Profile, ktest.Ringbuf)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for i := range 6 {
		cmd := exec.Command(self, "-test.run=^TestVictim$")
		cmd.Env = append(os.Environ(), envVictim+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // once it runs; else while it starts
			waitFor(out, "PROBES_ATTACHED")
		}
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		seen = seen || victims(t) > 0
		cmd.Process.Kill()
		cmd.Wait()
	}
	for start := time.Now(); time.Since(start) < patience; time.Sleep(50 * time.Millisecond) { // the kernel frees programs behind grace periods
		if victims(t) == 0 {
			if !seen {
				t.Error("the program was never there")
			}
			return
		}
	}
	t.Errorf("%d maps of killed traces are left", victims(t))
}

func waitFor(r io.Reader, text string) {
	var seen strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(seen.String(), text) {
		n, err := r.Read(b)
		if err != nil {
			return
		}
		seen.Write(b[:n])
	}
}

// victims counts the maps of the program that are in the kernel: they go with the last that uses them. Other tests may run.
func victims(t *testing.T) int {
	n := 0
	for id, err := ebpf.MapGetNextID(0); err == nil; id, err = ebpf.MapGetNextID(id) {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		info, err := m.Info()
		m.Close()
		if err == nil && info.Name == "at_victim" {
			n++
		}
	}
	return n
}
