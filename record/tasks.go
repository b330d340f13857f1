package record

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/traceevent"
)

// Task is what a task was called from a time on: a row of DIR/fathom/tasks.json.
type Task struct {
	Time uint64 `json:"t"` // ns; 0 is from the beginning
	TID  int    `json:"tid"`
	TGID int    `json:"tgid,omitempty"` // its process; 0 if that is not known
	Comm string `json:"comm"`
}

// taskTable collects names: what /proc said before and after, and the helper events in between.
type taskTable struct {
	mu    sync.Mutex
	rows  []Task
	known map[int]bool // tasks that have a first row
}

// snapshot reads the tasks that there are. Those that are known already stay as they are.
func (t *taskTable) snapshot(now uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.known == nil
	if first {
		t.known = map[int]bool{}
		t.rows = append(t.rows, Task{Comm: "<idle>"})
	}
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		for _, tid := range threads(pid) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/comm", pid, tid))
			if err != nil || t.known[tid] {
				continue
			}
			t.known[tid] = true
			row := Task{TID: tid, TGID: pid, Comm: strings.TrimSuffix(string(b), "\n")}
			if !first {
				row.Time = now
			}
			t.rows = append(t.rows, row)
		}
	}
}

// first are the rows that are known before anything was recorded.
func (t *taskTable) first() []Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Task{}, t.rows...)
}

// forget keeps only what tasks are called now: what was before is told.
func (t *taskTable) forget() {
	rows := t.settle()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = t.rows[:0]
	for i, r := range rows {
		if i+1 == len(rows) || rows[i+1].TID != r.TID {
			t.rows = append(t.rows, r)
		}
	}
}

// threads lists the threads of a process, the first one first.
func threads(pid int) []int {
	out := []int{pid}
	ents, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, e := range ents {
		if n, err := strconv.Atoi(e.Name()); err == nil && n != pid {
			out = append(out, n)
		}
	}
	return out
}

// cloneThread is CLONE_THREAD (include/uapi/linux/sched.h).
const cloneThread = 0x10000

// helperFormat are the fields of the helper events.
type helperFormat struct {
	newtask           bool
	pid, comm, flags  *traceevent.Field
	parent            *traceevent.Field
	oldcomm, nextcomm *traceevent.Field
}

func newHelper(f *traceevent.Format) *helperFormat {
	if f.System != "task" || f.Name != "task_newtask" && f.Name != "task_rename" {
		return nil
	}
	return &helperFormat{newtask: f.Name == "task_newtask", pid: f.Field("pid"), comm: f.Field("comm"), flags: f.Field("clone_flags"), parent: f.Field("common_pid"),
		oldcomm: f.Field("oldcomm"), nextcomm: f.Field("newcomm")}
}

// add takes in a helper event. Since 6.17 task_rename has no pid of its own: it is that of who renames itself.
func (t *taskTable) add(time uint64, h *helperFormat, rec []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tid := int(h.pid.Int(rec))
	if h.pid == nil {
		tid = int(h.parent.Int(rec))
	}
	if h.newtask {
		row := Task{Time: time, TID: tid, TGID: tid, Comm: h.comm.Text(rec)}
		if h.flags.Uint(rec)&cloneThread != 0 {
			row.TGID = -int(h.parent.Int(rec)) // the process of who made it: looked up when all are in order
		}
		t.rows = append(t.rows, row)
		return
	}
	t.rows = append(t.rows, Task{Time: time, TID: tid, Comm: h.nextcomm.Text(rec)})
	if old := h.oldcomm.Text(rec); old != "" {
		t.rows = append(t.rows, Task{Time: 0, TID: tid, Comm: old})
	}
}

// settle brings the rows in order and completes them: who belongs to which process, and what was said twice goes.
func (t *taskTable) settle() []Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	sorting.Stable(t.rows, func(a, b Task) int { return cmp.Or(cmp.Compare(a.TID, b.TID), cmp.Compare(a.Time, b.Time)) })
	var out []Task
	group := map[int]int{}
	for _, r := range t.rows {
		if r.TGID > 0 {
			group[r.TID] = r.TGID
		}
	}
	for _, r := range t.rows {
		switch {
		case r.TGID < 0:
			if r.TGID = group[-r.TGID]; r.TGID != 0 {
				group[r.TID] = r.TGID
			}
		case r.TGID == 0:
			r.TGID = group[r.TID]
		}
		n := len(out)
		if n > 0 && out[n-1].TID == r.TID && (out[n-1].Comm == r.Comm && out[n-1].TGID == r.TGID || r.Time == 0) {
			continue // the first of those at the beginning counts
		}
		out = append(out, r)
	}
	return out
}

// Tasks names tasks by their number and a time.
type Tasks struct{ by map[int][]Task }

// NewTasks takes rows in any order.
func NewTasks(rows []Task) *Tasks {
	t := &Tasks{by: map[int][]Task{}}
	for _, r := range rows {
		t.by[r.TID] = append(t.by[r.TID], r)
	}
	for _, list := range t.by {
		sorting.Stable(list, func(a, b Task) int { return cmp.Compare(a.Time, b.Time) })
	}
	return t
}

// At gives what a task was called at a time; ok is false if nobody knows.
func (t *Tasks) At(tid int, time uint64) (Task, bool) {
	if t == nil {
		return Task{}, false
	}
	list := t.by[tid]
	if len(list) == 0 {
		return Task{}, false
	}
	if len(list) == 1 || time < list[1].Time {
		return list[0], true
	}
	i, found := slices.BinarySearchFunc(list, time, func(r Task, at uint64) int { return cmp.Compare(r.Time, at) })
	if !found {
		i--
	}
	return list[max(i, 0)], true
}

// parseCmdlines reads lines of "PID NAME", as saved_cmdlines of tracefs has them.
func parseCmdlines(b []byte) (out []Task) {
	for line := range bytes.Lines(b) {
		num, name, ok := strings.Cut(strings.TrimRight(string(line), "\n"), " ")
		if pid, err := strconv.Atoi(strings.TrimSpace(num)); ok && err == nil {
			out = append(out, Task{TID: pid, Comm: name})
		}
	}
	return out
}
