package usersym

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/debuginfo/cfi"
	"github.com/fathom-trace/fathom/debuginfo/elf"
)

// CallFrames gives, for the code a process has mapped now, where the callers of its functions are: rows by address in its
// memory. A mapping whose file says nothing, or is no file, has one row, which says None. It is nil if the process is gone.
// changed is false, and the rows are nil, if the process has mapped what it had when it was last asked with this State.
func (r *Resolver) CallFrames(pid int, s *FrameState) (rows []cfi.Row, changed bool) {
	b, err := os.ReadFile(r.pid(pid, "maps"))
	if err != nil || len(b) == 0 {
		return nil, false
	}
	maps := parseMaps(b)
	if same(s.maps, maps) {
		return nil, false
	}
	s.maps = maps
	if s.files == nil {
		s.files = map[fileID]*frameFile{}
	}
	for _, m := range maps {
		rows = append(rows, cfi.Row{PC: m.start})
		if f := r.frameFile(pid, m, s); f != nil {
			rows = f.within(rows, m)
		}
		rows = append(rows, cfi.Row{PC: m.end})
	}
	return compact(rows), true
}

// FrameState is what was found out about a process's files, for asking again. The zero value is ready.
type FrameState struct {
	maps  []mapping
	files map[fileID]*frameFile
}

// frameFile is what a file says.
type frameFile struct {
	file *elf.File // its headers: its reader is closed
	rows []cfi.Row // as linked
}

func same(a, b []mapping) bool {
	return len(a) == len(b) && sameProgram(a, b)
}

// frameFile reads the file of a mapping, once.
func (r *Resolver) frameFile(pid int, m mapping, s *FrameState) *frameFile {
	if m.path == "[vdso]" {
		return r.frameVDSO(pid, m)
	}
	if m.path == "" || m.path[0] != '/' {
		return nil
	}
	for _, c := range r.candidates(pid, m) {
		var st unix.Stat_t
		if unix.Stat(c.path, &st) != nil || c.same && (st.Dev != m.dev || st.Ino != m.ino) {
			continue
		}
		id := identifyFile(&st)
		if f, ok := s.files[id]; ok {
			return f
		}
		fd, _, err := openRegular(c.path)
		if err != nil {
			continue
		}
		defer fd.Close()
		f, err := elf.Read(fd)
		if err != nil {
			s.files[id] = nil
			return nil
		}
		rows, _ := f.CallFrames() // of a damaged section, what stands before the damage
		s.files[id] = &frameFile{f, rows}
		return s.files[id]
	}
	return nil
}

func (r *Resolver) frameVDSO(pid int, m mapping) *frameFile {
	const maxVDSO = 1 << 20
	mem, err := os.Open(r.pid(pid, "mem"))
	if err != nil || m.end-m.start > maxVDSO {
		return nil
	}
	defer mem.Close()
	b := make([]byte, m.end-m.start)
	n, _ := mem.ReadAt(b, int64(m.start))
	f, err := elf.Read(bytes.NewReader(b[:n]))
	if err != nil {
		return nil
	}
	rows, _ := f.CallFrames()
	return &frameFile{f, rows}
}

// within appends the rows of a file that a mapping shows, at their addresses in memory.
func (f *frameFile) within(rows []cfi.Row, m mapping) []cfi.Row {
	lo, ok := f.file.Addr(m.off)
	if !ok {
		return rows
	}
	first := cfi.Find(f.rows, lo)
	first.PC = m.start
	rows = append(rows, first)
	for _, row := range f.rows {
		if row.PC > lo && row.PC-lo < m.end-m.start {
			row.PC += m.start - lo
			rows = append(rows, row)
		}
	}
	return rows
}

// compact leaves the last of rows at one address, and of neighbours that say the same the first.
func compact(rows []cfi.Row) []cfi.Row {
	out := rows[:0]
	for i, row := range rows {
		if i+1 < len(rows) && rows[i+1].PC == row.PC {
			continue
		}
		if n := len(out); n > 0 && sameRule(out[n-1], row) {
			continue
		}
		out = append(out, row)
	}
	return out
}

func sameRule(a, b cfi.Row) bool { a.PC = b.PC; return a == b }
