package keep

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMemoryRuns(t *testing.T) {
	const tree = `FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, ram): no.ram

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  0000000000100000-00000000bfffffff (prio 0, ram): pc.ram @0000000000100000
  00000000c0000000-00000000c0000fff (prio 0, ram): more
  00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi
  0000000100000000-000000013fffffff (prio 0, ram): pc.ram @00000000c0000000

FlatView #2
 AS "other", root: other
  0000000200000000-000000023fffffff (prio 0, ram): other
`
	want := [][2]uint64{{0, 0xa0000}, {0x100000, 0xc0001000}, {1 << 32, 0x140000000}}
	if d := cmp.Diff(want, memoryRuns(tree)); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "FlatView #1\n AS \"memory\", root: system\n", "FlatView #1\n AS \"memory\"\n x-y (prio 0, ram): z\n 5-4 (prio 0, ram): z\n"} {
		if got := memoryRuns(bad); got != nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// TestFreezeSocket: what is no QMP socket is told, with what to do.
func TestFreezeSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var se *SocketError
	if _, err := FreezeSocket(t.Context(), path); !errors.As(err, &se) || !errors.Is(err, os.ErrNotExist) || se.Try == "" {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	}()
	if _, err := FreezeSocket(t.Context(), path); !errors.As(err, &se) || se.Try == "" {
		t.Errorf("a socket of something else: %v", err)
	}
}
