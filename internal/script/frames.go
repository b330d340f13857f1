package script

import (
	"fmt"
	"slices"
	"time"

	"github.com/fathom-trace/fathom/debuginfo/cfi"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/usersym"
)

// frames tells programs with dw_ustack() what the processes they unwind have mapped.
type frames struct {
	states map[int]*usersym.FrameState
	rows   map[int][]cfi.Row
	told   bool // that there is not enough room
	looked time.Time
	begun  time.Time
}

// Room for rows beside those that the processes have at the start: what a program and its libraries need that are mapped
// later. A row takes ir.FrameRowSize bytes.
const spareRows = 1 << 17

// How often mappings are read again: often while a program starts.
const (
	framesStarting = 10 * time.Millisecond
	framesRunning  = 250 * time.Millisecond
	framesStart    = 2 * time.Second
)

// framePIDs are the processes that dw_ustack() can unwind.
func (r *runner) framePIDs() []int {
	pids := slices.Clone(r.o.FramePIDs)
	if r.o.PID != 0 {
		pids = append(pids, r.o.PID)
	}
	if r.child != nil {
		pids = append(pids, r.child.pid())
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// frameRoom says how many processes there are and how many rows they may need, twice: they are replaced while in use.
func (r *runner) frameRoom() (procs, rows int) {
	n := spareRows
	for _, pid := range r.framePIDs() {
		rows, _ := r.users.CallFrames(pid, &usersym.FrameState{})
		n += len(rows) + len(rows)/4
	}
	return len(r.framePIDs()), min(2*n, 1<<ir.FrameSteps-1)
}

// tellFrames reads what the processes have mapped and tells the programs, if it is time to and something changed.
func (r *runner) tellFrames() {
	if !r.sess.Unwinds() {
		return
	}
	f := &r.frames
	if f.states == nil {
		f.states, f.rows, f.begun = map[int]*usersym.FrameState{}, map[int][]cfi.Row{}, time.Now()
	}
	if time.Since(f.looked) < r.frameWait() {
		return
	}
	f.looked = time.Now()
	any := false
	for _, pid := range r.framePIDs() {
		if f.states[pid] == nil {
			f.states[pid] = &usersym.FrameState{}
		}
		if rows, changed := r.users.CallFrames(pid, f.states[pid]); changed {
			f.rows[pid], any = rows, true
		}
	}
	if !any {
		return
	}
	err := r.sess.Frames(f.rows)
	if err != nil && !f.told && !r.o.NoWarn {
		f.told = true
		fmt.Fprintf(r.o.Stderr, "WARNING: dw_ustack() will not see all callers: %v\n", err)
	}
}

// frameWait is how long the programs live with what they were told.
func (r *runner) frameWait() time.Duration {
	if time.Since(r.frames.begun) < framesStart {
		return framesStarting
	}
	return framesRunning
}
