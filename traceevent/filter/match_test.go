package filter

import (
	"encoding/binary"
	"testing"

	"github.com/fathom-trace/fathom/traceevent"
)

const queue = `name: net_dev_queue
ID: 9
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned int len;	offset:8;	size:4;	signed:0;
	field:int rc;	offset:12;	size:4;	signed:1;
	field:char name[8];	offset:16;	size:8;	signed:0;

print fmt: "%d", REC->len
`

func queued(t testing.TB) *traceevent.Event {
	f, err := traceevent.Parse([]byte(queue))
	if err != nil {
		t.Fatal(err)
	}
	f.System = "net"
	rec := make([]byte, 24)
	binary.LittleEndian.PutUint32(rec[4:], 42)
	binary.LittleEndian.PutUint32(rec[8:], 1500)
	rc := int32(-5)
	binary.LittleEndian.PutUint32(rec[12:], uint32(rc))
	copy(rec[16:], "eth0/1")
	return &traceevent.Event{Time: 1, CPU: 3, Format: f, Rec: rec}
}

func comm(*traceevent.Event) (string, bool) { return "curl", true }

func TestMatch(t *testing.T) {
	e := queued(t)
	tests := []struct {
		text string
		want bool
	}{
		{"len > 1000", true}, {"len>1500", false}, {"len >= 0x5dc && rc < 0", true}, {"rc == -5", true}, {"rc > -5", false},
		{`name == "eth0/1"`, true}, {`name ~ "eth*"`, true}, {`name ~ "*1"`, true}, {`name ~ "lo*"`, false}, {"name != lo", true},
		{"!(len == 1) && (rc == 0 || cpu == 3)", true}, {"len & 4", true}, {"len & 2", false}, {"common_pid == 42", true},
		{"comm == curl", true}, {"COMM ~ 'c?rl'", true}, {"nosuch == 1", false}, {"event == net:net_dev_queue", true}, {"len <= 1500", true},
	}
	for _, tt := range tests {
		f, err := New(tt.text, comm)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		for range 2 {
			if got := f.Match(e); got != tt.want {
				t.Errorf("%s is %v", tt.text, got)
			}
		}
	}
	f, _ := New("len == 0", nil)
	if !f.Match(&traceevent.Event{Lost: 5}) {
		t.Error("a gap is hidden")
	}
}

