package pingpong

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/bypass/verbs"
)

func TestHello(t *testing.T) {
	for _, tt := range []struct{ in, err string }{
		{`{"gid":"::ffff:10.0.0.1","qp":17,"psn":5,"mtu":1024,"size":64}`, ""},
		{`{"gid":"::ffff:10.0.0.1","qp":17,"psn":5,"mtu":1024,"size":0}`, "messages of 0 bytes"},
		{`{"gid":"::ffff:10.0.0.1","size":99999999}`, "messages of 99999999 bytes"},
		{`{"size":64}`, "of the address"},
		{`{"gid":"10.0.0.1","size":64}`, "of the address 10.0.0.1"},
		{"0000:000011:000005:0000", "no fathom bypass rdma"},
	} {
		h, err := parseHello([]byte(tt.in))
		if tt.err == "" && (err != nil || h != hello{verbs.Endpoint{GID: netip.MustParseAddr("::ffff:10.0.0.1"), QP: 17, PSN: 5}, 1024, 64}) {
			t.Errorf("%s: %+v, %v", tt.in, h, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %v, want %q", tt.in, err, tt.err)
		}
	}
}

// FuzzHello: whatever the other end tells, what is gone on with can be made.
func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"gid":"::ffff:10.0.0.1","qp":17,"psn":5,"mtu":1024,"size":64}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(b)
		if err == nil && (h.Size < 1 || h.Size > MostSize || !h.GID.IsValid()) {
			t.Errorf("%+v", h)
		}
	})
}

// TestMessages: no message is like the one before, so that an answer that is late is no answer.
func TestMessages(t *testing.T) {
	a, b := make([]byte, 64), make([]byte, 64)
	for i := range 1000 {
		fill(a, i)
		if string(a) == string(b) {
			t.Fatalf("messages %d and %d are the same", i-1, i)
		}
		a, b = b, a
	}
}
