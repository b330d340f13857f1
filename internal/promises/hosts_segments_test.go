package promises

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// streamed is a "packet" of fathom packet --host -j -v of a stream of TCP, and its "end".
type streamed struct {
	Type, Class, Host, Function string
	Seq                         *uint32
	Bytes                       uint32
	Legs                        []struct {
		Host     string
		Segments int
	}
	Ambiguous, Merged, Parted, Missed uint64

	LostRing uint64 `json:"lost_ring"`
}

var countedBytes = regexp.MustCompile(`counter packets (\d+) bytes (\d+)`)

// TestHostsSegments sends a stream of TCP through three hosts, of which some see several segments as one packet: what was joined is
// each of them, every byte is accounted for, and what a rule lost is found there and nowhere else.
func TestHostsSegments(t *testing.T) {
	ktest.Oracle(t, "ethtool")
	for _, c := range []struct {
		name string
		off  []string // devices that have packets divided before they send them
		node string   // which loses some
		hook string
		most int // as how many segments the node that loses sees a packet
	}{
		{"b and c merge, b loses", []string{"a/ab"}, "b", "forward", 64},
		{"b merges and divides, c loses", []string{"a/ab", "b/bc"}, "c", "input", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHosts(t, fmt.Sprintf(line, ""), "a", "b", "c")
			h.offload(t, "b/ba", "gro", "on")
			for _, dev := range c.off {
				h.offload(t, dev, "tso", "off")
			}
			h.rule(t, c.node, c.hook, "tcp dport 9000 tcp flags & (syn|fin) == 0 ip length > 100 numgen inc mod 23 == 5 counter drop")
			a := h.ask(t, "packet", "--host", "a,b,c", "--netns", "/proc/self/ns/net", "--within", "--plain", "-j", "-v", "tcp dst port 9000")
			a.until(t, 3, `"ready"`)
			const n = 1 << 20
			h.stream(t, n)
			said, code := a.interrupt(t)
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, a.stderr.String())
			}
			var arrived []streamed
			var syn uint32
			var lostBytes, lostSegments, merged, missed int
			var wrong []string
			for l := range strings.Lines(said) {
				var p streamed
				if err := json.Unmarshal([]byte(l), &p); err != nil {
					t.Fatalf("%s: %v", l, err)
				}
				if p.Type == "end" && ((p.Ambiguous > 0 || p.Merged > 0) && p.Missed == 0 || p.LostRing > 0 || p.Parted == 0) {
					t.Errorf("not joined: %s", l)
				}
				if p.Type == "end" {
					missed = int(p.Missed)
				}
				if p.Type != "packet" || p.Seq == nil {
					continue
				}
				way := ""
				for _, leg := range p.Legs {
					way += leg.Host
					if leg.Host == "b" && leg.Segments > 1 {
						merged++
					}
				}
				switch {
				case p.Class == "delivered" && way == "abc":
					arrived = append(arrived, p)
				case p.Class == "drop" && p.Host == c.node && p.Function == "nft_do_chain" && strings.HasSuffix(way, c.node) && strings.HasPrefix("abc", way):
					lostSegments++
					lostBytes += int(p.Bytes)
				case p.Class == "drop" && p.Function != "nft_do_chain" && strings.HasSuffix(way, p.Host) && strings.HasPrefix("abc", way):
					// A machine that has much to do loses some of itself, and TCP sends what c has had again too early.
				default:
					wrong = append(wrong, l)
				}
			}
			if missed > 0 {
				// A program that was interrupted by what it watches misses that, which is told: each may have been of a whole packet.
				if t.Logf("%d events were missed, %d segments are not told right", missed, len(wrong)); len(wrong) > 64*missed {
					t.Errorf("too many: %v", wrong)
				}
				return
			}
			for _, l := range wrong {
				t.Errorf("neither delivered by a, b and c nor lost at %s: %s", c.node, l)
			}
			if len(arrived) == 0 {
				t.Fatalf("nothing arrived\n%s", said)
			}
			// Numbers may begin anew within the stream: they are told from one in its middle.
			middle := arrived[len(arrived)/2]
			at := func(p streamed) int { return int(int32(*p.Seq - *middle.Seq)) }
			slices.SortFunc(arrived, func(a, b streamed) int { return cmp.Compare(at(a), at(b)) })
			syn = *arrived[0].Seq
			end := at(arrived[0])
			for _, p := range arrived {
				if at(p) > end {
					t.Errorf("bytes %d to %d of the stream did not arrive", end, at(p))
				}
				end = max(end, at(p)+int(p.Bytes))
			}
			if got := end - at(arrived[0]); got != n {
				t.Errorf("%d bytes from %d on are told to have arrived, of %d", got, syn, n)
			}
			m := countedBytes.FindStringSubmatch(do(t, "nsenter", "--net="+h.netns(t, c.node), "nft", "list", "table", "ip", "lossy"))
			packets, _ := strconv.Atoi(m[1])
			size, _ := strconv.Atoi(m[2])
			const headers = 20 + 20 + 12 // with time stamps
			if lostBytes != size-packets*headers || packets == 0 || c.most == 1 && lostSegments != packets {
				t.Errorf("the rule lost %d packets of %d bytes, told are %d segments of %d bytes", packets, size-packets*headers, lostSegments, lostBytes)
			}
			if merged == 0 {
				t.Error("b saw no segments as one packet")
			}
			t.Logf("%d segments arrived, %d that b saw as part of a larger packet; %d lost in %d packets", len(arrived), merged, lostSegments, packets)
		})
	}
}

// offload sets a feature of a device, "node/device".
func (h *hosts) offload(t *testing.T, dev, feature, to string) {
	t.Helper()
	node, name, _ := strings.Cut(dev, "/")
	do(t, "nsenter", "--net="+h.netns(t, node), "ethtool", "-K", name, feature, to)
}

// stream sends bytes from a to c, all of which arrive.
func (h *hosts) stream(t *testing.T, n int) {
	t.Helper()
	listener := h.socket(t, "c", func(fd int) error {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 9000}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
	sender := h.socket(t, "a", func(fd int) error {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 9000, Addr: [4]byte{10, 91, 2, 2}})
	})
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	sent := make(chan error, 1)
	go func() {
		b := make([]byte, n)
		for len(b) > 0 {
			k, err := unix.Write(sender, b)
			if err != nil && err != unix.EINTR {
				sent <- err
				return
			}
			b = b[max(0, k):]
		}
		sent <- unix.Shutdown(sender, unix.SHUT_WR)
	}()
	got, b := 0, make([]byte, 1<<20)
	for {
		k, err := unix.Read(conn, b)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		if err == nil && k == 0 {
			break
		}
		got += max(0, k)
	}
	if err := <-sent; err != nil || got != n {
		t.Fatalf("%d of %d bytes arrived: %v", got, n, err)
	}
}

// socket makes a socket of TCP in a node, to be closed when the test ends. It waits for nothing longer than a test may.
func (h *hosts) socket(t *testing.T, node string, set func(fd int) error) (fd int) {
	t.Helper()
	err := h.in(t, node).Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &unix.Timeval{Sec: int64(patience.Seconds())}); err != nil {
				return err
			}
		}
		return set(fd)
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
