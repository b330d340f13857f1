package script

import (
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// watched is written to while its address is watched.
var watched atomic.Uint64

// TestUnwatch: a watchpoint sees writes until the program ends it, and the program goes on.
func TestUnwatch(t *testing.T) {
	ktest.Need(t, ktest.Ringbuf, ktest.Tracepoint)
	addr := uintptr(unsafe.Pointer(&watched))
	before := watched.Load()
	out, errs := runProgram(t, fmt.Sprintf(`watchpoint:0x%x:8:w { @n++; if (@n == 3) { unwatch(0x%x); } }
interval:ms:600 { @tick++; if (@tick == 1) { @seen = @n; } if (@tick == 2) { printf("%%d then %%d\n", @seen, @n); unwatch(0x10); exit(); } }`, addr, addr),
		func() { watched.Add(1) }, regexp.MustCompile(`then`))
	var first, then uint64
	if _, err := fmt.Sscanf(out, "%d then %d", &first, &then); err != nil {
		t.Fatalf("%v: %s%s", err, out, errs)
	}
	if wrote := watched.Load() - before; first < 3 || then != first || then >= wrote {
		t.Errorf("saw %d writes, then %d, of %d", first, then, wrote)
	}
	if !strings.Contains(errs, "there is no watchpoint at 0x10") {
		t.Errorf("of an address that nobody watches: %q", errs)
	}
}
