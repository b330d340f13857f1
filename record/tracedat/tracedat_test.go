package tracedat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/fathom-trace/fathom/internal/hostile"
	"github.com/fathom-trace/fathom/traceevent"
)

const (
	headerPage = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n"
	formatX    = "name: x\nID: 5\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\tfield:int n;\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: \"n=%d\", REC->n\n"
)

// page is a page with n events of x, the first at time.
func page(time uint64, from, n int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, time)
	b = le.AppendUint64(b, uint64(16*n))
	for i := range n {
		b = le.AppendUint32(b, 10<<5|3)
		b = le.AppendUint32(b, 5)
		b = le.AppendUint32(b, 77)
		b = le.AppendUint32(b, uint32(from+i))
	}
	return append(b, make([]byte, 4096-len(b))...)
}

// file builds a file of a version, with data of two CPUs.
func file(t testing.TB, version int, packed bool) []byte {
	t.Helper()
	le := binary.LittleEndian
	pages := [][]byte{append(page(1000, 0, 3), page(2000, 3, 2)...), page(1005, 100, 1)}
	text64 := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	head := append([]byte(Magic), fmt.Sprintf("%d\x00\x00\x08\x00\x10\x00\x00", version)...)
	info := text64(text64(append([]byte(nil), "header_page\x00"...), headerPage), "")
	info = append(info[:len(info)-8], "header_event\x00"...)
	info = text64(info, "")
	ftrace := le.AppendUint32(nil, 0)
	formats := le.AppendUint32(nil, 1)
	formats = append(formats, "sys\x00"...)
	formats = text64(le.AppendUint32(formats, 1), formatX)
	syms := append(le.AppendUint32(nil, 20), "ffffffff81000000 T f"...)
	printk := le.AppendUint32(nil, 0)
	names := text64(nil, "77 task\n")
	if version == 6 {
		b := head
		for _, p := range [][]byte{info, ftrace, formats, syms, printk, names} {
			b = append(b, p...)
		}
		b = le.AppendUint32(b, 2)
		b = append(b, "options  \x00"...)
		b = le.AppendUint16(b, optUname)
		b = append(le.AppendUint32(b, 11), "Linux h 6.1"...)
		b = append(le.AppendUint16(b, 0), "flyrecord\x00"...)
		at := (len(b) + 32 + 4095) &^ 4095
		b = le.AppendUint64(le.AppendUint64(b, uint64(at)), 8192)
		b = le.AppendUint64(le.AppendUint64(b, uint64(at+8192)), 4096)
		b = append(b, make([]byte, at-len(b))...)
		return append(append(b, pages[0]...), pages[1]...)
	}
	pack := func(b []byte) []byte { return b }
	name := "none"
	if packed {
		name = "zstd"
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		pack = func(b []byte) []byte { return w.EncodeAll(b, nil) }
	}
	b := append(head, name+"\x001\x00"...)
	first := len(b)
	b = le.AppendUint64(b, 0)
	options := []byte{}
	option := func(id uint16, data []byte) {
		options = append(le.AppendUint32(le.AppendUint16(options, id), uint32(len(data))), data...)
	}
	section := func(id uint16, data []byte) uint64 {
		at := uint64(len(b))
		flags := uint16(0)
		if packed {
			p := pack(data)
			data = append(le.AppendUint32(le.AppendUint32(nil, uint32(len(p))), uint32(len(data))), p...)
			flags = 1
		}
		b = le.AppendUint16(le.AppendUint16(b, id), flags)
		b = le.AppendUint64(le.AppendUint32(b, 0), uint64(len(data)))
		b = append(b, data...)
		return at
	}
	for _, s := range []struct {
		id   uint16
		data []byte
	}{{optHeader, info}, {optFtrace, ftrace}, {optFormats, formats}, {optKallsyms, syms}, {optPrintk, printk}, {optCmdlines, names}} {
		option(s.id, le.AppendUint64(nil, section(s.id, s.data)))
	}
	option(optUname, []byte("Linux h 6.1"))
	buffer := uint64(len(b))
	flags := uint16(0)
	if packed {
		flags = 1
	}
	b = le.AppendUint64(le.AppendUint32(le.AppendUint16(le.AppendUint16(b, optBuffer), flags), 0), 0)
	opt := append(le.AppendUint64(nil, buffer), "\x00mono\x00"...)
	opt = le.AppendUint32(le.AppendUint32(opt, 4096), 2)
	for cpu, p := range pages {
		at := len(b)
		if packed {
			b = le.AppendUint32(b, uint32(len(p)/4096))
			for ; len(p) > 0; p = p[4096:] {
				c := pack(p[:4096])
				b = le.AppendUint32(le.AppendUint32(b, uint32(len(c))), 4096)
				b = append(b, c...)
			}
		} else {
			b = append(b, p...)
		}
		opt = le.AppendUint64(le.AppendUint64(le.AppendUint32(opt, uint32(cpu)), uint64(at)), uint64(len(b)-at))
	}
	option(optBuffer, opt)
	option(optDone, le.AppendUint64(nil, 0))
	le.PutUint64(b[first:], uint64(len(b)))
	b = le.AppendUint64(le.AppendUint32(le.AppendUint16(le.AppendUint16(b, optDone), 0), 0), uint64(len(options)))
	return append(b, options...)
}

// list reads all events of a file.
func list(b []byte) (out []string, f *File, err error) {
	if f, err = Open(bytes.NewReader(b), int64(len(b))); err != nil {
		return nil, nil, err
	}
	var streams []traceevent.Stream
	for i := range f.Buffers {
		for _, d := range f.Buffers[i].Data {
			streams = append(streams, f.Stream(&f.Buffers[i], d))
		}
	}
	s := traceevent.Merge(streams)
	for e := range traceevent.All(s) {
		if e.Format == nil {
			out = append(out, fmt.Sprintf("%d lost %d", e.Time, e.Lost))
			continue
		}
		out = append(out, fmt.Sprintf("%d [%d] %s:%s %s", e.Time, e.CPU, e.Format.System, e.Format.Name, e.Format.AppendFields(nil, e.Rec)))
	}
	return out, f, s.Err()
}

func TestRead(t *testing.T) {
	want := []string{"1010 [0] sys:x n=0", "1015 [1] sys:x n=100", "1020 [0] sys:x n=1", "1030 [0] sys:x n=2", "2010 [0] sys:x n=3", "2020 [0] sys:x n=4"}
	for _, tt := range []struct {
		version int
		packed  bool
	}{{6, false}, {7, false}, {7, true}} {
		got, f, err := list(file(t, tt.version, tt.packed))
		if err != nil {
			t.Fatalf("%+v: %v", tt, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%+v: %s", tt, d)
		}
		if f.Uname != "Linux h 6.1" || string(f.Cmdlines) != "77 task\n" || !strings.HasPrefix(string(f.Kallsyms), "ffffffff81000000") || f.Header.Size != 4096 {
			t.Errorf("%+v: %q %q %q %+v", tt, f.Uname, f.Cmdlines, f.Kallsyms, f.Header)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"hello", "trace.dat at 0x0: does not begin as such a file does"},
		{Magic + "8\x00\x00\x08\x00\x10\x00\x00", "version \"8\": 6 and 7 are known"},
		{Magic + "6\x00\x01\x08\x00\x10\x00\x00", "a big endian machine"},
		{Magic + "7\x00\x00\x08\x00\x10\x00\x00none\x00\x00\xff\x00\x00\x00\x00\x00\x00\x00", "beyond the end of the file"},
	} {
		if _, _, err := list([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.text, err)
		}
	}
}

// mutations is how many damaged copies of each file are read.
// TestMutated: whatever is damaged or cut, reading ends.
func TestMutated(t *testing.T) {
	for _, good := range [][]byte{file(t, 6, false), file(t, 7, false), file(t, 7, true)} {
		hostile.Check(t, good, 400, func(b []byte) {
			if got, _, _ := list(b); len(got) > len(b) {
				t.Fatalf("%d events out of %d bytes", len(got), len(b))
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(file(f, 6, false))
	f.Add(file(f, 7, false))
	f.Add(file(f, 7, true))
	f.Fuzz(func(t *testing.T, b []byte) { _, _, _ = list(b) })
}
