package jsonl

import (
	"errors"
	"io"
	"testing"
)

func TestLine(t *testing.T) {
	b, err := Line(struct {
		Flow string `json:"flow"`
	}{"10.0.0.1 > 10.0.0.2 & <nil>"})
	if want := `{"flow":"10.0.0.1 > 10.0.0.2 & <nil>"}` + "\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v; want %q", b, err, want)
	}
	if _, err := Line(func() {}); err == nil {
		t.Error("a function became JSON")
	}
	r, w := io.Pipe()
	r.Close()
	if err := Write(w, 1); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("to nobody: %v", err)
	}
}
