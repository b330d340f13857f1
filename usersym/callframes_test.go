package usersym

import (
	"os"
	"reflect"
	"testing"

	"github.com/fathom-trace/fathom/debuginfo/cfi"
)

// TestCallFrames reads those of this process: each function that its own tables name is in its program's or has none.
func TestCallFrames(t *testing.T) {
	r := New(Options{})
	defer r.Close()
	var s FrameState
	rows, changed := r.CallFrames(os.Getpid(), &s)
	if !changed || len(rows) == 0 {
		t.Fatal("nothing is mapped")
	}
	for i := 1; i < len(rows); i++ {
		if rows[i-1].PC >= rows[i].PC {
			t.Fatalf("rows at %#x, %#x", rows[i-1].PC, rows[i].PC)
		}
	}
	// The Go linker writes .debug_frame, unless it strips; the vdso has .eh_frame.
	for _, m := range s.maps {
		if m.path != "[vdso]" {
			continue
		}
		some := false
		for _, row := range rows {
			some = some || row.PC >= m.start && row.PC < m.end && row.Base == cfi.SP
		}
		if !some {
			t.Error("no row in the vdso")
		}
	}
	if got := cfi.Find(rows, uint64(reflect.ValueOf(r.CallFrames).Pointer())); got.PC == 0 {
		t.Error("no row, not even an empty one, at our own code")
	}
	if _, changed := r.CallFrames(os.Getpid(), &s); changed {
		t.Error("changed, but nothing was mapped")
	}
	if rows, changed := r.CallFrames(1<<30, &FrameState{}); changed || rows != nil {
		t.Error("frames of no process")
	}
}
