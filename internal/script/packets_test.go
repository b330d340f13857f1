package script

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestSkboutput has datagrams written to a file, and reads them there.
func TestSkboutput(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint)
	file := filepath.Join(t.TempDir(), "out.pcap")
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	c, err := net.DialUDP("udp4", nil, sink.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := 0
	// Of other packets there may be more than are read in time: the rest of the machine is at work, too.
	runProgram(t, fmt.Sprintf(`rawtracepoint:netif_receive_skb {
	$skb = (struct sk_buff *)arg0;
	if (((struct iphdr *)$skb.data)->protocol == 17 && bswap(*(uint16 *)($skb.data + 22)) == %d) { $r = skboutput(%q, $skb, $skb.len, 0); }
}
interval:ms:500 { printf("tick\n"); }`, sink.LocalAddr().(*net.UDPAddr).Port, file), func() {
		fmt.Fprintf(c, "datagram %d of fathom", sent)
		sent++
	}, regexp.MustCompile(`(tick\n){3}`))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if len(b) < 24 || le.Uint32(b) != 0xa1b23c4d || le.Uint32(b[20:]) != 101 {
		t.Fatalf("%d bytes, which begin %x", len(b), b[:min(24, len(b))])
	}
	got := map[int]bool{}
	for b = b[24:]; len(b) >= 16; {
		size := int(le.Uint32(b[8:]))
		if size > len(b)-16 {
			t.Fatalf("a packet of %d bytes in %d", size, len(b)-16)
		}
		p := b[16 : 16+size]
		n := 0
		if len(p) > 28 && p[0] == 0x45 {
			if k, _ := fmt.Sscanf(string(p[28:]), "datagram %d of fathom", &n); k == 1 {
				if got[n] || len(p) != 28+len(fmt.Sprintf("datagram %d of fathom", n)) {
					t.Fatalf("datagram %d in %d bytes, again: %t", n, len(p), got[n])
				}
				got[n] = true
			}
		}
		b = b[16+size:]
	}
	// Those sent before the probe was there and after it are missing. One that ksoftirqd delivers may be later than the next.
	var ns []int
	for n := range got {
		ns = append(ns, n)
	}
	slices.Sort(ns)
	if len(ns) < 5 || len(b) != 0 || ns[len(ns)-1] >= sent || ns[len(ns)-1]-ns[0] != len(ns)-1 {
		t.Errorf("of %d datagrams: %v; %d bytes are left", sent, ns, len(b))
	}
}
