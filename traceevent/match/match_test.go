package match

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
)

const format = `name: net_dev_queue
ID: 9
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned int len;	offset:8;	size:4;	signed:0;
	field:int rc;	offset:12;	size:4;	signed:1;
	field:char name[8];	offset:16;	size:8;	signed:0;

print fmt: "%d", REC->len
`

func event(t testing.TB) *traceevent.Event {
	f, err := traceevent.Parse([]byte(format))
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

// TestOption: what compares with a field that a record does not have, having another option, does not match.
func TestOption(t *testing.T) {
	e := event(t)
	binary.LittleEndian.PutUint16(e.Rec[2:], 2)
	rc := e.Format.Field("rc")
	for n, want := range map[uint16]bool{0: true, 1: false, 2: true, 3: false} {
		rc.Option = traceevent.Option{At: 2, N: n}
		for _, text := range []string{"rc == -5", "rc != 7", "rc < 0 || len == 1"} {
			f, err := Parse(text, comm)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Match(e); got != want || rc.There(e.Rec) != want {
				t.Errorf("option %d, %s: %v", n, text, got)
			}
		}
	}
	rc.Option = traceevent.Option{At: 23, N: 1}
	if rc.There(e.Rec) {
		t.Error("an option that a record is too short for")
	}
}

func TestMatch(t *testing.T) {
	e := event(t)
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
		f, err := Parse(tt.text, comm)
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
	f, _ := Parse("len == 0", nil)
	if !f.Match(&traceevent.Event{Lost: 5}) {
		t.Error("a gap is hidden")
	}
}

func TestErrors(t *testing.T) {
	for _, text := range []string{"len >", "len", "(len == 1", "len == 1 x", `name == "abc`, ""} {
		var bad *filter.Error
		if _, err := Parse(text, nil); !errors.As(err, &bad) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"len > 1000 && !(name ~ \"e*\")", "cpu == 1 || rc & 0x3", "((((", "a == -1"} {
		f.Add(s)
	}
	e := event(f)
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := Parse(text, comm); err == nil {
			c.Match(e)
		}
	})
}
