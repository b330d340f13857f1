package hostile

import (
	"bytes"
	"testing"
)

// TestCheck wants copies that are cut and changed, and the original as it was.
func TestCheck(t *testing.T) {
	good := bytes.Repeat([]byte("fathom"), 100)
	was := bytes.Clone(good)
	short, changed := 0, 0
	Check(t, good, 50, func(b []byte) {
		switch {
		case bytes.HasPrefix(good, b):
			short++
		default:
			changed++
		}
	})
	if short < cuts || changed < mutations*9/10 || !bytes.Equal(good, was) {
		t.Errorf("%d cut, %d changed", short, changed)
	}
	Check(t, nil, 0, func([]byte) {})
}
