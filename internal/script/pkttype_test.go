package script

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// TestPacketTypes: a field of three bits, behind a pointer that a tracepoint has as a number, is read as the kernel set it: for us,
// for all, for somebody else.
func TestPacketTypes(t *testing.T) {
	ktest.Need(t, ktest.Tracepoint, ktest.BTF, ktest.Ringbuf, ktest.NetNS)
	near, far := fmt.Sprintf("n%d", os.Getpid()), fmt.Sprintf("f%d", os.Getpid())
	p, err := topology.NewPair(near, far)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var own net.HardwareAddr
	if err := p.B.Do(func() error {
		i, err := net.InterfaceByName(far)
		if err == nil {
			own = i.HardwareAddr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	frames := []struct {
		to    net.HardwareAddr
		n     int
		types string // PACKET_HOST, PACKET_BROADCAST, PACKET_OTHERHOST (if_packet.h)
	}{{own, 7, "0"}, {net.HardwareAddr{255, 255, 255, 255, 255, 255}, 3, "1"}, {net.HardwareAddr{2, 9, 9, 9, 9, 9}, 5, "3"}}
	sent := false
	src := fmt.Sprintf(`tracepoint:net:netif_receive_skb /str(args->name) == "%s" && ((struct sk_buff*)(args->skbaddr))->protocol == 0xb588/
{ printf("type %%d\n", ((struct sk_buff*)(args->skbaddr))->pkt_type); }`, far)
	out, errs := runHeard(t, src, func(said *syncBuffer) {
		if sent || !strings.Contains(said.String(), "Attached") {
			return
		}
		sent = true
		if err := p.A.Do(func() error {
			i, err := traffic.OpenInjector(near)
			if err != nil {
				return err
			}
			defer i.Close()
			for _, f := range frames {
				frame := traffic.Frame{Dst: f.to, Src: net.HardwareAddr{2, 0, 0, 0, 0, 1}, EtherType: 0x88b5, Payload: bytes.Repeat([]byte("x"), 50)}.Bytes()
				for range f.n {
					if err := i.Send(frame); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}, regexp.MustCompile(`(type \d\n){15}`))
	want, got := map[string]int{}, map[string]int{}
	for _, f := range frames {
		want[f.types] = f.n
	}
	for line := range strings.Lines(out) {
		if typ, ok := strings.CutPrefix(strings.TrimSpace(line), "type "); ok {
			got[typ]++
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s\n%s\n%s", d, out, errs)
	}
}
