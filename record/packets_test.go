package record

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/hostile"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/wire/pcapng"
)

// udp is a datagram of four bytes from 10.0.0.1:5000 to 10.0.0.2:53.
var udp = []byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x13, 0x88, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4}

// capture is a file of two packets and a gap.
func capture(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapng.NewWriter(&b, pcapng.Section{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := w.Add(pcapng.Interface{Link: pcapng.LinkRaw, Name: "veth0"})
	if err != nil {
		t.Fatal(err)
	}
	for i, dropped := range []uint64{0, 3} {
		p := pcapng.Packet{Interface: in, Time: 1_700_000_000_250_000_000 + int64(i)*1e9, Data: udp, WireLen: 100, Dropped: dropped}
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// packetLines opens a capture and prints it.
func packetLines(file string) (out []string, t *Trace, err error) {
	t, err = Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer t.Close()
	s := t.Events()
	for e := range traceevent.All(s) {
		if e.Format == nil {
			out = append(out, "lost")
			continue
		}
		out = append(out, string(traceevent.NewPrinter(e.Format).Append(nil, e.Rec, &t.Env)))
	}
	return out, t, s.Err()
}

func TestPackets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(file, capture(t), 0o644); err != nil {
		t.Fatal(err)
	}
	got, tr, err := packetLines(file)
	want := []string{"veth0 IP 10.0.0.1.5000 > 10.0.0.2.53: UDP, length 4", "lost", "veth0 IP 10.0.0.1.5000 > 10.0.0.2.53: UDP, length 4"}
	if d := cmp.Diff(want, got); d != "" || err != nil || tr.ToReal != 1_700_000_000_000_000_000 {
		t.Error(err, tr.ToReal, d)
	}
	hostile.Check(t, capture(t), 100, func(b []byte) {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, _, _ := packetLines(file); len(got) > len(b) {
			t.Fatalf("%d events out of %d bytes", len(got), len(b))
		}
	})
}
