package cli

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// TestFrugal: the bound is a quarter above what is in use, where that exceeds it, comes down again, and is gone at the end.
func TestFrugal(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	const bound = 24 << 20
	stop := frugal(bound)
	await := func(what string, ok func(limit int64) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(debug.SetMemoryLimit(-1)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the limit is %d with %s", debug.SetMemoryLimit(-1), what)
			}
			runtime.GC()
		}
	}
	const used = 64 << 20
	kept := make([]byte, used)
	await("64 MiB in use", func(limit int64) bool { return limit > used+used/4 && limit < 2*used })
	runtime.KeepAlive(kept)
	await("little in use", func(limit int64) bool { return limit < used })
	stop()
	runtime.GC()
	if now := debug.SetMemoryLimit(-1); now != before {
		t.Errorf("the limit is %d afterwards, was %d", now, before)
	}
}
