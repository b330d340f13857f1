package remote

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stub answers requests from a table, with acknowledgements until QStartNoAckMode.
func stub(c net.Conn, answers map[string]string) {
	r := bufio.NewReader(c)
	ack := true
	for {
		if _, err := r.ReadString('$'); err != nil {
			return
		}
		req, err := r.ReadString('#')
		if err != nil {
			return
		}
		if _, err := r.Discard(2); err != nil {
			return
		}
		req = strings.TrimSuffix(req, "#")
		if ack {
			io.WriteString(c, "+")
		}
		ans := answers[req]
		if req == "QStartNoAckMode" {
			ack, ans = false, "OK"
		}
		fmt.Fprintf(c, "$%s#%02x", ans, sum(ans))
	}
}

func connect(t *testing.T, answers map[string]string) *Client {
	t.Helper()
	a, b := net.Pipe()
	// The pipe has no buffer: the client's acknowledgement of the first packets is read by the stub's search for $.
	go stub(b, answers)
	a.SetDeadline(time.Now().Add(10 * time.Second))
	k, err := New(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return k
}

func TestClient(t *testing.T) {
	regs := make([]byte, registersLen+100)
	regs[0], regs[16*8], regs[17*8] = 0x11, 0x22, 0x33
	k := connect(t, map[string]string{
		"g": hex.EncodeToString(regs), "m1000,3": "0* ff", "m2000,1": "E14", "Qqemu.PhyMemMode:1": "OK", "Qqemu.PhyMemMode:0": "OK", "m3000,2": "abcd", "M1000,2:abcd": "OK",
		"qfThreadInfo": "m01,p1.2", "qsThreadInfo": "l", "Hg2": "OK", "Z1,ffff,1": "OK", "z1,ffff,1": "OK",
		"c": "T05thread:02;", "s": "S05", "D": "OK",
	})
	r, err := k.Registers()
	if d := cmp.Diff(Registers{RAX: 0x11, RIP: 0x22, EFLAGS: 0x33}, r); err != nil || d != "" {
		t.Error(d, err)
	}
	b := make([]byte, 3)
	if err := k.ReadVirt(b, 0x1000); err != nil || string(b) != "\x00\x00\xff" {
		t.Errorf("% x: %v", b, err)
	}
	var fault *FaultError
	if err := k.ReadVirt(b[:1], 0x2000); !errors.As(err, &fault) || fault.Addr != 0x2000 {
		t.Error(err)
	}
	if err := k.ReadPhys(b[:2], 0x3000); err != nil || string(b[:2]) != "\xab\xcd" {
		t.Errorf("% x: %v", b, err)
	}
	ids, err := k.Threads()
	if d := cmp.Diff([]int{1, 2}, ids); err != nil || d != "" {
		t.Error(d, err)
	}
	for what, err := range map[string]error{
		"write": k.WriteVirt([]byte{0xab, 0xcd}, 0x1000), "thread": k.Thread(2),
		"break": k.Break(Hardware, 0xffff, 1), "unbreak": k.Unbreak(Hardware, 0xffff, 1),
	} {
		if err != nil {
			t.Error(what, err)
		}
	}
	if err := k.Break(Software, 1, 1); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if s, err := k.Continue(); s != (Stop{5, 2}) || err != nil {
		t.Error(s, err)
	}
	if s, err := k.Step(); s != (Stop{Signal: 5}) || err != nil {
		t.Error(s, err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// TestReadAhead reads what takes several requests, which are sent before the first is answered: also where an answer is short, and
// where one is an error.
func TestReadAhead(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "stub"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := make([]byte, 2*chunk+100)
	for i := range want {
		want[i] = byte(i * 7)
	}
	hexOf := func(from, to int) string { return hex.EncodeToString(want[from:to]) }
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		stub(c, map[string]string{
			"m10000,800": hexOf(0, chunk), "m10800,800": hexOf(chunk, 2*chunk), "m11000,64": hexOf(2*chunk, len(want)),
			"m20000,800": hexOf(0, chunk), "m20800,800": hexOf(chunk, chunk+16), "m21000,64": hexOf(2*chunk, len(want)),
			"m20810,800": hexOf(chunk+16, 2*chunk+16), "m21010,54": hexOf(2*chunk+16, len(want)),
			"m30000,800": hexOf(0, chunk), "m30800,800": "E14", "m31000,64": hexOf(2*chunk, len(want)),
		})
	}()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []uint64{0x10000, 0x20000, 0x30000, 0x10000} {
		got := make([]byte, len(want))
		err := k.ReadVirt(got, at)
		var fault *FaultError
		if at == 0x30000 {
			if !errors.As(err, &fault) || fault.Addr != at+chunk {
				t.Errorf("%#x: %v", at, err)
			}
			continue
		}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%#x: %v %s", at, err, d)
		}
	}
}

// onlyReads is a connection that gives bytes and swallows what is written.
type onlyReads struct {
	net.Conn
	r io.Reader
}

func (c onlyReads) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c onlyReads) Write(p []byte) (int, error) { return len(p), nil }
func (c onlyReads) Close() error                { return nil }

func FuzzClient(f *testing.F) {
	f.Add([]byte("+$OK#9a+$OK#9a$0*!ff#8d$T05thread:01;#07"))
	f.Add([]byte("+$#00$}\x03#80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := New(onlyReads{r: strings.NewReader(string(b))})
		if err != nil {
			return
		}
		_, _ = k.Registers()
		_ = k.ReadVirt(make([]byte, 8), 0)
		_, _ = k.Threads()
		_, _ = k.Continue()
	})
}
