package cli

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest/qmp"
)

// TestCoreSocket reads the kernel of a QEMU that nobody of ours started: it has died for want of a root file system.
func TestCoreSocket(t *testing.T) {
	if !ktest.Soak() {
		t.Skip("boots a guest until it dies: with make soak")
	}
	const kernel = "debian-6.12-cloud"
	k := ktest.Bootable(t, kernel)
	program := ktest.Oracle(t, "qemu-system-x86_64")
	dir := t.TempDir()
	socket, console := filepath.Join(dir, "qmp"), filepath.Join(dir, "console")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg,thread=single", "-m", "512",
		"-kernel", k.Image(), "-append", "console=ttyS0 quiet no_timer_check", "-serial", "file:"+console, "-qmp", "unix:"+socket+",server=on,wait=off")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for said := []byte(nil); !strings.Contains(string(said), "end Kernel panic"); said, _ = os.ReadFile(console) {
		select {
		case <-ctx.Done():
			t.Fatalf("the guest: %s", said)
		case <-time.After(100 * time.Millisecond):
		}
	}
	fathom := ktest.Fathom(t).Path
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "Unable to mount root fs"},
		{[]string{"sys"}, "6.12."},
		{[]string{"ps"}, "swapper/0"},
		{[]string{"bt", "1"}, "mount_root_generic"},
	} {
		out, err := exec.CommandContext(ctx, fathom, append([]string{"core", "--guest", socket}, tt.args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("core %q: %v, without %q: %s", tt.args, err, tt.want, out)
		}
	}
	out, err := exec.CommandContext(ctx, fathom, "trace", "--guest", socket, "-q", "-e", "iter:task { @[comm] = count(); }").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "@[kthreadd]: 1") {
		t.Errorf("trace: %v %s", err, out)
	}
	// It goes on, and nothing is left.
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := qmp.New(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var status struct{ Running bool }
	if b, err := c.Execute(ctx, "query-status", nil); err != nil || json.Unmarshal(b, &status) != nil || !status.Running {
		t.Errorf("afterwards: %s, %v", b, err)
	}
}
