package dwarftypes

import (
	"debug/dwarf"
)

// Frame is a function that an address is in: the one whose code it is, or one that was inlined there.
type Frame struct {
	Name    string // as in the source; "" if not known
	File    string
	Line    int // of the address, or for functions that others were inlined into of the call; 0 if not known
	Inlined bool
}

// Frames gives the functions an address, as linked, is in: the innermost first, the one that is no inlined one last. It is
// empty where the debug information says nothing of the address.
func (l *Lookup) Frames(pc uint64) (frames []Frame, err error) {
	defer guard(&err)
	if len(l.data) == 0 {
		return nil, nil
	}
	d := l.data[0]
	e, err := d.Reader().SeekPC(pc)
	if err != nil || e == nil {
		return nil, nil // not ours
	}
	u := unit{d, e}
	var chain []*dwarf.Entry
	u.walk(func(e *dwarf.Entry) bool {
		if e.Tag == dwarf.TagSubprogram && covers(d, e, pc) {
			chain = append(chain, e)
			inlined(d, e, pc, &chain)
			return false
		}
		return true
	})
	file, line, files := position(u, pc)
	for i := len(chain) - 1; i >= 0; i-- {
		frames = append(frames, Frame{Name: nameOf(d, chain[i]), File: file, Line: line, Inlined: i > 0})
		file, line = callSite(chain[i], files)
	}
	if len(chain) == 0 && line > 0 {
		frames = []Frame{{File: file, Line: line}}
	}
	return frames, nil
}

func covers(d *dwarf.Data, e *dwarf.Entry, pc uint64) bool {
	ranges, err := d.Ranges(e)
	if err != nil {
		return false
	}
	for _, r := range ranges {
		if r[0] <= pc && pc < r[1] {
			return true
		}
	}
	return false
}

// maxInlined bounds how deep inlining is followed.
const maxInlined = 64

// inlined appends the calls below e that were inlined at pc, from the outside in.
func inlined(d *dwarf.Data, e *dwarf.Entry, pc uint64, chain *[]*dwarf.Entry) {
	if !e.Children || len(*chain) > maxInlined {
		return
	}
	r := d.Reader()
	r.Seek(e.Offset)
	r.Next()
	for {
		c, err := r.Next()
		if err != nil || c == nil || c.Tag == 0 {
			return
		}
		if (c.Tag == dwarf.TagInlinedSubroutine || c.Tag == dwarf.TagLexDwarfBlock) && covers(d, c, pc) {
			if c.Tag == dwarf.TagInlinedSubroutine {
				*chain = append(*chain, c)
			}
			inlined(d, c, pc, chain)
			return
		}
		if c.Children {
			r.SkipChildren()
		}
	}
}

// position gives the source line of pc, and the files that call sites count.
func position(u unit, pc uint64) (file string, line int, files []*dwarf.LineFile) {
	lr, err := u.data.LineReader(u.entry)
	if err != nil || lr == nil {
		return "", 0, nil
	}
	var e dwarf.LineEntry
	if lr.SeekPC(pc, &e) == nil && e.File != nil {
		file, line = e.File.Name, e.Line
	}
	return file, line, lr.Files()
}

func callSite(e *dwarf.Entry, files []*dwarf.LineFile) (file string, line int) {
	n, _ := e.Val(dwarf.AttrCallFile).(int64)
	l, _ := e.Val(dwarf.AttrCallLine).(int64)
	if n > 0 && n < int64(len(files)) && files[n] != nil {
		file = files[n].Name
	}
	return file, int(l)
}

// nameOf gives a function's name, from what it is an instance of where it has none.
func nameOf(d *dwarf.Data, e *dwarf.Entry) string {
	for range 4 {
		if n, _ := e.Val(dwarf.AttrName).(string); n != "" {
			return n
		}
		off, ok := origin(e)
		if !ok {
			return ""
		}
		r := d.Reader()
		r.Seek(off)
		next, err := r.Next()
		if err != nil || next == nil {
			return ""
		}
		e = next
	}
	return ""
}
