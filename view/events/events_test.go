package events

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/traceevent"
)

const switchFormat = `name: sched_switch
ID: 314
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:char next_comm[8];	offset:8;	size:8;	signed:0;
	field:int next_pid;	offset:16;	size:4;	signed:1;

print fmt: "next_comm=%s next_pid=%d", REC->next_comm, REC->next_pid
`

const queueFormat = `name: queue
ID: 7
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:void * skb;	offset:8;	size:8;	signed:0;
	field:__data_loc char[] dev;	offset:16;	size:4;	signed:0;
	field:int rc;	offset:20;	size:4;	signed:1;
	field:u16 list[2];	offset:24;	size:4;	signed:0;

print fmt: "dev=%s rc=%d", __get_str(dev), REC->rc
`

func format(t testing.TB, system, text string) *traceevent.Format {
	f, err := traceevent.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	f.System = system
	return f
}

// sample is a switch to bash, an event of it, a gap, and a switch to the idle task.
func sample(t testing.TB) (*Source, []*traceevent.Format, []traceevent.Event) {
	sw, q := format(t, "sched", switchFormat), format(t, "net", queueFormat)
	le := binary.LittleEndian
	to := func(comm string, pid int) []byte {
		b := make([]byte, 20)
		b[2], b[3] = flagIrqsOff|flagResched|flagPreempt, 2
		copy(b[8:], comm)
		le.PutUint32(b[16:], uint32(pid))
		return b
	}
	rec := make([]byte, 28)
	rec[2] = flagHardirq
	le.PutUint32(rec[4:], 42)
	le.PutUint64(rec[8:], 0xffff888001234500)
	le.PutUint32(rec[16:], 7<<16|28)
	rc := int32(-5)
	le.PutUint32(rec[20:], uint32(rc))
	le.PutUint16(rec[24:], 1)
	le.PutUint16(rec[26:], 300)
	rec = append(rec, "e\"th0\x00\x00"...)
	src := &Source{Env: &traceevent.Env{}, ToReal: 1e18, Comm: func(tid int, _ uint64) (string, bool) {
		return map[int]string{0: "<idle>", 42: "bash"}[tid], tid == 0 || tid == 42
	}}
	return src, []*traceevent.Format{sw, q}, []traceevent.Event{
		{Time: 1_000_000_499, CPU: 1, Format: sw, Rec: to("bash", 42)},
		{Time: 1_000_001_500, CPU: 1, Format: q, Rec: rec},
		{Time: 1_000_009_000, CPU: 1, Lost: 17, Since: 1_000_001_500},
		{Time: 1_000_010_000, CPU: 1, Format: sw, Rec: to("swapper", 0)},
	}
}

func shown(t *testing.T, make func(b *bytes.Buffer, s *Source, f []*traceevent.Format) Writer) string {
	t.Helper()
	src, formats, evs := sample(t)
	var b bytes.Buffer
	w := make(&b, src, formats)
	for i := range evs {
		if err := w.Event(&evs[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	got := shown(t, func(b *bytes.Buffer, s *Source, _ []*traceevent.Format) Writer { return NewText(b, s, false) })
	want := `          <idle>-0       [001] dN.2.     1.000000: sched_switch: next_comm=bash next_pid=42
            bash-42      [001] ..h..     1.000002: queue: dev=e"th0 rc=-5
CPU:1 [LOST 17 EVENTS between     1.000002 and     1.000009]
          <idle>-0       [001] dN.2.     1.000010: sched_switch: next_comm=swapper next_pid=0
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got = shown(t, func(b *bytes.Buffer, s *Source, _ []*traceevent.Format) Writer { return NewText(b, s, true) })
	if !strings.Contains(got, " 2001-09-09 01:46:41.000001500: queue:") {
		t.Error(got)
	}
}

func TestJSON(t *testing.T) {
	got := shown(t, func(b *bytes.Buffer, s *Source, _ []*traceevent.Format) Writer { return NewJSON(b, s) })
	want := `{"type":"event","t":1000000499,"cpu":1,"event":"sched:sched_switch","tid":0,"comm":"<idle>","fields":{"next_comm":"bash","next_pid":42}}
{"type":"event","t":1000001500,"cpu":1,"event":"net:queue","tid":42,"comm":"bash","fields":{"skb":"0xffff888001234500","dev":"e\"th0","rc":-5,"list":[1,300]}}
{"type":"lost","t":1000009000,"since":1000001500,"cpu":1,"count":17}
{"type":"event","t":1000010000,"cpu":1,"event":"sched:sched_switch","tid":0,"comm":"<idle>","fields":{"next_comm":"swapper","next_pid":0}}
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for l := range strings.Lines(got) {
		if !json.Valid([]byte(l)) {
			t.Errorf("no JSON: %s", l)
		}
	}
}

func TestCSV(t *testing.T) {
	got := shown(t, func(b *bytes.Buffer, s *Source, f []*traceevent.Format) Writer {
		w, err := NewCSV(b, s, f)
		if err != nil {
			t.Fatal(err)
		}
		return w
	})
	want := `time,cpu,event,tid,comm,lost,next_comm,next_pid,skb,dev,rc,list
1000000499,1,sched:sched_switch,0,<idle>,,bash,42,,,,
1000001500,1,net:queue,42,bash,,,,0xffff888001234500,"e""th0",-5,"{0x1,0x12c}"
1000009000,1,lost,,,17,,,,,,
1000010000,1,sched:sched_switch,0,<idle>,,swapper,0,,,,
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestStats(t *testing.T) {
	got := shown(t, func(b *bytes.Buffer, s *Source, _ []*traceevent.Format) Writer { return NewStats(b, s, 1) })
	want := `3 events in 10µs, 315756/s

       COUNT   SHARE  EVENT
           2  66.67%  sched:sched_switch
           1  33.33%  net:queue

       COUNT   SHARE  TASK
           2  66.67%  <idle>-0
                      and 1 more

       COUNT         LOST   GAPS        BLIND  CPU
           3           17      1          8µs  1
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestChrome(t *testing.T) {
	got := shown(t, func(b *bytes.Buffer, s *Source, _ []*traceevent.Format) Writer { return NewChrome(b, s) })
	var trace struct {
		TraceEvents []struct {
			Ph, Name string
			Ts, Dur  float64
			Tid      int
		} `json:"traceEvents"`
	}
	if err := json.Unmarshal([]byte(got), &trace); err != nil {
		t.Fatal(err, got)
	}
	var out []string
	for _, e := range trace.TraceEvents {
		out = append(out, fmt.Sprintf("%s %s %d %.3f %.3f", e.Ph, e.Name, e.Tid, e.Ts, e.Dur))
	}
	want := []string{"M process_name 0 0.000 0.000", "i net:queue 1 1000001.500 0.000", "X bash-42 1 1000000.499 8.501", "X LOST 17 EVENTS 1 1000001.500 7.500"}
	if d := cmp.Diff(want, out); d != "" {
		t.Error(d, got)
	}
	var none bytes.Buffer
	if err := NewChrome(&none, &Source{}).Close(); err != nil || !json.Valid(none.Bytes()) {
		t.Errorf("nothing is %s, %v", none.String(), err)
	}
}

// fields takes a message apart: numbers as they are, submessages and texts as bytes.
func fields(t *testing.T, b []byte) (out []struct {
	num int
	v   uint64
	b   []byte
}) {
	t.Helper()
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		v, k := binary.Uvarint(b[n:])
		if n <= 0 || k <= 0 {
			t.Fatal("no message")
		}
		b = b[n+k:]
		f := struct {
			num int
			v   uint64
			b   []byte
		}{num: int(key >> 3), v: v}
		switch key & 7 {
		case 0:
		case 2:
			f.b, b = b[:v], b[v:]
		default:
			t.Fatalf("wire type %d", key&7)
		}
		out = append(out, f)
	}
	return out
}

// TestPerfetto decodes what was written, by the numbers of trace_packet.proto.
func TestPerfetto(t *testing.T) {
	got := shown(t, func(b *bytes.Buffer, s *Source, _ []*traceevent.Format) Writer { return NewPerfetto(b, s) })
	var out []string
	for _, p := range fields(t, []byte(got)) {
		time, text := uint64(0), ""
		for _, f := range fields(t, p.b) {
			switch f.num {
			case 8:
				time = f.v
			case 60:
				for _, d := range fields(t, f.b) {
					if d.num == 2 {
						text = "track " + string(d.b)
					}
				}
			case 11:
				for _, d := range fields(t, f.b) {
					switch d.num {
					case 9:
						text += fmt.Sprint("type ", d.v)
					case 23:
						text += " " + string(d.b)
					case 4:
						for _, a := range fields(t, d.b) {
							if a.num == 10 {
								text += " " + string(a.b) + "="
							} else if a.b != nil {
								text += string(a.b)
							} else {
								text += fmt.Sprint(int64(a.v))
							}
						}
					}
				}
			}
		}
		out = append(out, fmt.Sprintf("%d %s", time, text))
	}
	want := []string{"0 track CPU 1", "1000000499 type 1 bash-42", `1000001500 type 3 net:queue task=bash-42 skb=-131391620430592 dev=e"th0 rc=-5 list={0x1,0x12c}`,
		"1000001500 type 2", "1000001500 type 1 LOST 17 EVENTS", "1000009000 type 2"}
	if d := cmp.Diff(want, out); d != "" {
		t.Error(d)
	}
}

func BenchmarkText(b *testing.B) {
	src, _, evs := sample(b)
	w := NewText(discard{}, src, false)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := w.Event(&evs[i&1]); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
