package hist

import (
	"errors"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/traceevent"
)

// TestTrigger: what is read is written as the kernel takes it.
func TestTrigger(t *testing.T) {
	for text, want := range map[string]string{
		"hist:keys=skbaddr.hex:vals=len":                                                 "hist:keys=skbaddr.hex:vals=len",
		"hist:keys=common_stacktrace:values=bytes_req,bytes_alloc:sort=bytes_alloc":      "hist:keys=common_stacktrace:vals=bytes_req,bytes_alloc:sort=bytes_alloc",
		"hist:key=a,b:val=hitcount,c:size=4096:pause if c > 5 && comm==x":                "hist:keys=a,b:vals=c:size=4096:pause if c > 5 && comm==x",
		"hist:keys=pid:ts0=common_timestamp.usecs if comm==\"x\"":                        "hist:keys=pid:ts0=common_timestamp.usecs if comm==\"x\"",
		"hist:keys=next_pid:lat=common_timestamp.usecs-$ts0:onmax($lat).save(next_comm)": "hist:keys=next_pid:lat=common_timestamp.usecs-$ts0:onmax($lat).save(next_comm)",
		"hist:keys=a:sort=a.descending,hitcount:cont":                                    "hist:keys=a:sort=a.descending,hitcount:continue",
	} {
		got, err := ParseTrigger(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got.String() != want {
			t.Errorf("%s is read as %s, want %s", text, got, want)
		}
	}
}

const event = `name: kmalloc
ID: 1
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:size_t bytes_req;	offset:8;	size:8;	signed:0;
	field:char name[16];	offset:16;	size:16;	signed:0;

print fmt: ""
`

// TestWrong: what the kernel answers with EINVAL alone is told at its place.
func TestWrong(t *testing.T) {
	f, err := traceevent.Parse([]byte(event))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		off  int
		msg  string
	}{
		{"keys=a", 0, "begins with hist:"},
		{"hist:vals=a", 0, "keys= is missing"},
		{"hist:keys=a,b,c,d", 5, "4 keys: the kernel takes 3"},
		{"hist:keys=a,a", 5, "key a is given twice"},
		{"hist:keys=a:size=0", 12, "the kernel takes 128 to 131072"},
		{"hist:keys=a:vals=b,c,d", 12, "3 values beside hitcount"},
		{"hist:keys=a:pause:clear", 0, "only one of"},
		{"hist:keys=a:sort=b", 12, "neither a key nor a value"},
		{"hist:keys=a:frob", 12, `"frob" is no part of a histogram`},
		{"hist:keys=bytes_req if bytes_req >", 34, "a value is missing"},
		{"hist:keys=bytes", 10, "kmalloc has no field bytes; it has bytes_req name"},
		{"hist:keys=bytes_req:vals=name", 25, "name is no number"},
		{"hist:keys=bytes_req if nam == 1", 23, "no field nam"},
	} {
		tr, err := ParseTrigger(c.text)
		if err == nil {
			err = tr.Check(c.text, f)
		}
		var e *Error
		if !errors.As(err, &e) || e.Off != c.off || !strings.Contains(e.Msg, c.msg) {
			t.Errorf("%s: %v, want %d: %s", c.text, err, c.off, c.msg)
		}
	}
}

func TestSwitch(t *testing.T) {
	s, ok := ParseSwitch(`enable_hist:net:netif_receive_skb if filename=="./tcptest"`)
	if want := (Switch{true, "net", "netif_receive_skb", `filename=="./tcptest"`}); !ok || s != want {
		t.Errorf("%+v", s)
	}
	if _, ok := ParseSwitch("enable_event:a:b"); ok {
		t.Error("enable_event is taken for a switch")
	}
}

func FuzzTrigger(f *testing.F) {
	f.Add("hist:keys=a,b.log2:vals=c:sort=c.ascending:size=256:pause if c > 5")
	f.Add("hist:keys=a:x=common_timestamp-$y:onmatch(a.b).trace(s,$x)")
	ev, err := traceevent.Parse([]byte(event))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tr, err := ParseTrigger(s)
		if err != nil {
			return
		}
		_ = tr.Check(s, ev)
		if _, err := ParseTrigger(tr.String()); err != nil {
			t.Errorf("%q is read as %q, which is not read: %v", s, tr, err)
		}
	})
}
