package hist

import (
	"fmt"
	"strings"
)

// Trigger says what to count by which keys.
type Trigger struct {
	Keys   []string // fields with their modifiers, "common_stacktrace"
	Values []string // fields to be summed, beside hitcount
	Size   int      // entries; 0 is the kernel's default, 2048
	Pause  bool     // does not count until it is continued
	If     string   // filter, in the language of package filter
}

// Limits of the kernel (TRACING_MAP_KEYS_MAX, TRACING_MAP_VALS_MAX less hitcount, TRACING_MAP_BITS_MIN and _MAX).
const (
	MaxKeys   = 3
	MaxValues = 2
	MinSize   = 1 << 7
	MaxSize   = 1 << 17
)

// String gives the trigger as it is written into a trigger file.
func (t Trigger) String() string {
	var b strings.Builder
	b.WriteString("hist:keys=" + strings.Join(t.Keys, ","))
	if len(t.Values) > 0 {
		b.WriteString(":vals=" + strings.Join(t.Values, ","))
	}
	if t.Size != 0 {
		fmt.Fprintf(&b, ":size=%d", t.Size)
	}
	if t.Pause {
		b.WriteString(":pause")
	}
	if t.If != "" {
		b.WriteString(" if " + t.If)
	}
	return b.String()
}
