package traceevent

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const schedSwitch = `name: sched_switch
ID: 316
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:char prev_comm[16];	offset:8;	size:16;	signed:0;
	field:long prev_state;	offset:32;	size:8;	signed:1;

print fmt: "prev_comm=%s prev_state=%s", REC->prev_comm, __print_flags(REC->prev_state, "|", { 1, "S" })
`

func TestParse(t *testing.T) {
	want := &Format{
		Name: "sched_switch", ID: 316,
		Fields: []Field{
			{Type: "unsigned short", Name: "common_type", Size: 2, Common: true, ArrayLen: -1},
			{Type: "int", Name: "common_pid", Offset: 4, Size: 4, Signed: true, Common: true, ArrayLen: -1},
			{Type: "char", Name: "prev_comm", Offset: 8, Size: 16, ArrayLen: 16},
			{Type: "long", Name: "prev_state", Offset: 32, Size: 8, Signed: true, ArrayLen: -1},
		},
		Print: `"prev_comm=%s prev_state=%s", REC->prev_comm, __print_flags(REC->prev_state, "|", { 1, "S" })`,
	}
	got, err := Parse([]byte(schedSwitch))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if f := got.Field("prev_state"); f == nil || f.Offset != 32 || got.Field("nosuch") != nil {
		t.Errorf("Field: %v", f)
	}
}

func TestFields(t *testing.T) {
	tests := []struct {
		decl string
		size int
		want Field
	}{
		{"__data_loc char[] filename", 4, Field{Type: "char", Name: "filename", DataLoc: true}},
		{"__rel_loc u8[] raw", 4, Field{Type: "u8", Name: "raw", RelLoc: true}},
		{"__data_loc cpumask_t *[] cpus", 4, Field{Type: "cpumask_t *", Name: "cpus", DataLoc: true}},
		{"const char * filename", 8, Field{Type: "const char *", Name: "filename", ArrayLen: -1}},
		{"const char *const *argv", 8, Field{Type: "const char *const *", Name: "argv", ArrayLen: -1}},
		{"char buf[]", 0, Field{Type: "char", Name: "buf"}},
		{"char comm[TASK_COMM_LEN]", 16, Field{Type: "char", Name: "comm", ArrayLen: 16}},
		{"unsigned long ip[MAX]", 64, Field{Type: "unsigned long", Name: "ip", ArrayLen: 8}},
		{"__u8 m[2][6]", 12, Field{Type: "__u8", Name: "m", ArrayLen: 12}},
		{"enum tcp_state state", 4, Field{Type: "enum tcp_state", Name: "state", ArrayLen: -1}},
		{"void (*fn)(struct x *)", 8, Field{Type: "void (*)(struct x *)", Name: "fn", ArrayLen: -1}},
	}
	for _, tt := range tests {
		f, msg := parseField(tt.decl + ";\toffset:8;\tsize:" + itoa(tt.size) + ";\tsigned:0;")
		tt.want.Offset, tt.want.Size = 8, tt.size
		if d := cmp.Diff(tt.want, f); d != "" || msg != "" {
			t.Errorf("%s: %s\n%s", tt.decl, msg, d)
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "no name"},
		{"no ID", "name: x\n", "no ID"},
		{"ID", "name: x\nID: -4\n", "event format at 0x8: bad ID"},
		{"line", "name: x\nwhat is this\n", "unexpected line"},
		{"offset", "field:int x;\tsize:4;\n", "without offset"},
		{"huge", "field:int x;\toffset:70000;\tsize:4;\n", "bad offset"},
		{"no name", "field:;\toffset:0;\tsize:4;\n", "no type and name"},
		{"array of nothing", "field:[3] x;\toffset:0;\tsize:4;\n", "no type"},
	}
	for _, tt := range tests {
		_, err := Parse([]byte(tt.in))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func itoa(n int) string {
	if n >= 10 {
		return itoa(n/10) + string(rune('0'+n%10))
	}
	return string(rune('0' + n))
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(schedSwitch))
	f.Add([]byte("name: x\nID: 1\nformat:\n\tfield:__data_loc char[] s;\toffset:8;\tsize:4;\n\nprint fmt: \"a\nb\""))
	f.Add([]byte("field:void (*x[4])(int)[2];offset:1;size:2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		for _, fd := range p.Fields {
			if fd.Name == "" || fd.Type == "" || fd.Offset > maxRecord || fd.Size > maxRecord || fd.ArrayLen < -1 {
				t.Errorf("%q: %+v", b, fd)
			}
		}
	})
}
