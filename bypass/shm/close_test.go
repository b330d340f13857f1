package shm

import (
	"errors"
	"io"
	"testing"
)

// TestCloseIsNoDeath: a reader that looks for its writer at the moment at which that closes is told of the end, not of a death.
func TestCloseIsNoDeath(t *testing.T) {
	for range 3000 {
		m, err := Create(Config{})
		if err != nil {
			t.Fatal(err)
		}
		other, err := Open(m.Path())
		if err != nil {
			t.Fatal(err)
		}
		w, err := other.Writer(0)
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Reader(0)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- w.Close() }()
		for {
			err := r.over()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(<-done, r.Close(), other.Close(), m.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
