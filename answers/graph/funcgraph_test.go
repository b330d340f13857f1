package graph

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// format is a format file with the common fields and these: "TYPE NAME" of so many bytes each.
func format(name string, id int, fields ...any) []byte {
	s := fmt.Sprintf("name: %s\nID: %d\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"+
		"\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"+
		"\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n", name, id)
	off := 8
	for i := 0; i < len(fields); i += 2 {
		size := fields[i+1].(int)
		s += fmt.Sprintf("\tfield:%s;\toffset:%d;\tsize:%d;\tsigned:1;\n", fields[i], off, size)
		off += size
	}
	return []byte(s + "\nprint fmt: \"\"\n")
}

// formats are those of Debian's 6.12, the numbers apart.
func formats(t testing.TB) *Formats {
	t.Helper()
	f, err := ParseFormats(map[string][]byte{
		"funcgraph_entry": format("funcgraph_entry", 11, "unsigned long func", 8, "int depth", 4),
		"funcgraph_exit":  format("funcgraph_exit", 10, "unsigned long func", 8, "int depth", 4, "unsigned int overrun", 4, "unsigned long long calltime", 8, "unsigned long long rettime", 8),
		"sched_switch":    format("sched_switch", 300, "char prev_comm[16]", 16, "pid_t prev_pid", 4, "int prev_prio", 4, "long prev_state", 8, "char next_comm[16]", 16, "pid_t next_pid", 4),
		"task_rename":     format("task_rename", 301, "pid_t pid", 4, "char oldcomm[16]", 16, "char newcomm[16]", 16),
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// rec makes a record of numbers (uint64: 8 bytes, int: 4) and names (16 bytes) behind the common fields.
func rec(id uint16, flags byte, pid int, vals ...any) []byte {
	b := binary.LittleEndian.AppendUint16(nil, id)
	b = append(b, flags, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(pid))
	for _, v := range vals {
		switch v := v.(type) {
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, v)
		case int:
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		case string:
			b = append(b, append([]byte(v), make([]byte, 16-len(v))...)...)
		}
	}
	return b
}

func TestDecode(t *testing.T) {
	const fn = uint64(0xffffffff81000000)
	tests := []struct {
		name string
		rec  []byte
		want []Event
	}{
		{"entry", rec(11, 0, 7, fn, 3), []Event{{Kind: Enter, CPU: 1, Task: 7, Time: 99, Func: fn}}},
		{"exit in a hard interrupt in a softirq", rec(10, 0x18, 7, fn, 3, 0, uint64(100), uint64(350)), []Event{{Kind: Exit, Ctx: Hardirq, CPU: 1, Task: 7, Time: 99, Func: fn, Dur: 250}}},
		{"exit, clock went back", rec(10, 0x10, 7, fn, 3, 0, uint64(350), uint64(100)), []Event{{Kind: Exit, Ctx: Softirq, CPU: 1, Task: 7, Time: 99, Func: fn}}},
		{"NMI", rec(11, 0x48, 7, fn, 3), []Event{{Kind: Enter, Ctx: NMI, CPU: 1, Task: 7, Time: 99, Func: fn}}},
		{"switch", rec(300, 0, 7, "cat", 7, 120, uint64(1), "dog", 8), []Event{{Kind: Out, CPU: 1, Task: 7, Time: 99, Comm: "cat"}, {Kind: In, CPU: 1, Task: 8, Time: 99, Comm: "dog"}}},
		{"the last switch", rec(300, 0, 7, "cat", 7, 120, uint64(0x20), "dog", 8), []Event{{Kind: Gone, CPU: 1, Task: 7, Time: 99, Comm: "cat"}, {Kind: In, CPU: 1, Task: 8, Time: 99, Comm: "dog"}}},
		{"rename", rec(301, 0, 7, 9, "cat", "dog"), []Event{{Kind: Rename, CPU: 1, Task: 9, Time: 99, Comm: "dog"}}},
		{"another event", rec(12, 0, 7, fn), nil},
		{"cut", rec(11, 0, 7)[:5], nil},
		{"empty", nil, nil},
	}
	f := formats(t)
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, f.Decode(nil, 1, 99, tt.rec)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestParseFormats(t *testing.T) {
	entry := format("funcgraph_entry", 11, "unsigned long func", 8)
	for name, files := range map[string]map[string][]byte{
		"no exit":  {"funcgraph_entry": entry},
		"no field": {"funcgraph_entry": entry, "funcgraph_exit": format("funcgraph_exit", 10, "int depth", 4)},
		"no text":  {"funcgraph_entry": entry, "funcgraph_exit": nil},
	} {
		if _, err := ParseFormats(files); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(rec(11, 0, 7, uint64(1), 3))
	f.Add(rec(300, 0, 7, "cat", 7, 120, uint64(1), "dog", 8))
	fs := formats(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(fs.Decode(nil, 0, 0, b)); n > 2 {
			t.Errorf("%d events of one record", n)
		}
	})
}
