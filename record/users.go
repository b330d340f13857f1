package record

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/usersym"
)

// UserFunc is a function of a program, in stacks of programs.
type UserFunc struct {
	Name  string `json:"name,omitempty"` // "" if only the file is known
	File  string `json:"file,omitempty"` // as the process saw it; "" for code of a JIT compiler
	Build string `json:"build,omitempty"`
	Start uint64 `json:"start,omitempty"` // as linked in File; 0 without Name
}

// userTable is DIR/fathom/users.json: what the addresses in stacks of programs were, when they were recorded.
type userTable struct {
	Note  string     `json:"note,omitempty"` // what is not named, and why
	Funcs []UserFunc `json:"funcs"`
	Rows  []userRow  `json:"rows"`

	index map[UserFunc]int // of Funcs, while it is made
}

// userRow is an address of a process. It is an array in the file, for there are many.
type userRow [5]uint64 // process, since when, address, offset in the function or without one in the file as linked, index in Funcs

// maxUserRows bounds how many addresses of programs one segment names.
const maxUserRows = 1 << 18

// users sees what processes map while they are recorded, and names their addresses. Segments that have not been finished use it
// beside the recorder; the last one closes it.
type users struct {
	names *usersym.Resolver
	note  string
	held  atomic.Int32
	mu    sync.Mutex
	maps  *probe.Mappings // nil if nobody tells, and at the end
}

// watchUsers begins to see. Processes that there are already are read from /proc.
func watchUsers() (*users, error) {
	u := &users{names: usersym.New(usersym.Options{})}
	u.held.Store(1)
	if !initialPIDs() {
		u.note = "functions of programs are not named: process numbers here are those of a PID namespace, and the kernel's tracing has the machine's"
		return u, nil
	}
	var err error
	if u.maps, err = probe.WatchMappings(u.names); err != nil {
		u.note = fmt.Sprintf("functions of programs that ended before the recording did are not named: %v", err)
	}
	procs, err := os.ReadDir("/proc")
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil {
			u.names.Note(pid)
		}
	}
	return u, err
}

// hold keeps the names for one more who uses them.
func (u *users) hold() *users {
	if u != nil {
		u.held.Add(1)
	}
	return u
}

// drain takes what was mapped until now.
func (u *users) drain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.maps != nil {
		u.maps.Drain()
	}
}

// end sees no more; the names stay. It may be called twice.
func (u *users) end() error {
	if u == nil {
		return nil
	}
	u.drain()
	u.mu.Lock()
	defer u.mu.Unlock()
	m := u.maps
	if u.maps = nil; m == nil {
		return nil
	}
	return m.Close()
}

// release is for each who held it.
func (u *users) release() error {
	if u == nil || u.held.Add(-1) > 0 {
		return nil
	}
	return u.names.Close()
}

// userPlace is an address that means one thing: in a process, since it mapped what it did.
type userPlace struct {
	pid         int
	since, addr uint64
}

// seeUser remembers the addresses in a stack of a program. Behind the first are those that calls return to: the calls are before them.
func (f *finisher) seeUser(e *traceevent.Event) {
	pid := int(e.Format.Field("tgid").Uint(e.Rec))
	since := f.users.names.Epoch(pid, e.Time)
	for i, addr := range traceevent.Addresses(e.Format.Field("caller").Bytes(e.Rec)) {
		if p := (userPlace{pid, since, addr - uint64(min(i, 1))}); len(f.places) < maxUserRows {
			f.places[p] = true
		}
	}
}

// table names the addresses that were seen.
func (f *finisher) table() userTable {
	t := userTable{Note: f.users.note, Funcs: []UserFunc{}, Rows: []userRow{}}
	for p := range f.places {
		fr, ok := f.users.names.ResolveAt(p.pid, p.since, p.addr)
		if !ok {
			continue
		}
		fn, off := UserFunc{Name: fr.Name, File: fr.File, Build: fr.Build}, fr.Addr
		if fr.Name != "" {
			off = fr.Offset
			fn.Start = fr.Addr - min(fr.Addr, off)
		}
		t.add(p, fn, off)
	}
	t.sort()
	return t
}

// add adds what an address was.
func (t *userTable) add(p userPlace, fn UserFunc, off uint64) {
	i, known := t.index[fn]
	if !known {
		if t.index == nil {
			t.index = map[UserFunc]int{}
		}
		i = len(t.Funcs)
		t.index[fn] = i
		t.Funcs = append(t.Funcs, fn)
	}
	t.Rows = append(t.Rows, userRow{uint64(p.pid), p.since, p.addr, off, uint64(i)})
}

func (t *userTable) sort() {
	sorting.By(t.Rows, func(a, b userRow) int { return slices.Compare(a[:], b[:]) })
}

// userTable is what a recording of ours says of programs' addresses.
func (t *Trace) userTable() userTable {
	out := userTable{Funcs: []UserFunc{}, Rows: []userRow{}}
	keys := slices.Collect(maps.Keys(t.users))
	sorting.By(keys, func(a, b userKey) int { return cmp.Or(cmp.Compare(a.pid, b.pid), cmp.Compare(a.addr, b.addr)) })
	for _, k := range keys { // functions are numbered as they come
		for _, at := range t.users[k] {
			out.add(userPlace{k.pid, at.since, k.addr}, *at.frame.UserFunc, at.frame.Off)
		}
	}
	out.sort()
	return out
}

// UserFrame is what an address of a program was.
type UserFrame struct {
	*UserFunc
	Off uint64 // from where the function begins; without a function from where the file does, as linked
}

// userKey is an address of a process, at whatever time.
type userKey struct {
	pid  int
	addr uint64
}

// userAt is what an address was from a time on.
type userAt struct {
	since uint64
	frame UserFrame
}

// readUsers reads the names of programs' functions, if they are there. Rows that name nothing are passed over.
func (t *Trace) readUsers(own string) {
	var table userTable
	if err := readJSON(filepath.Join(own, usersFile), &table); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			t.Notes = append(t.Notes, err.Error())
		}
		return
	}
	t.addUsers(&table)
}

func (t *Trace) addUsers(table *userTable) {
	if n := table.Note; n != "" && !slices.Contains(t.Notes, n) {
		t.Notes = append(t.Notes, n)
	}
	if t.users == nil {
		t.users = map[userKey][]userAt{}
	}
	for _, r := range table.Rows {
		if r[4] >= uint64(len(table.Funcs)) {
			continue
		}
		k := userKey{int(r[0]), r[2]}
		list := t.users[k]
		i, same := slices.BinarySearchFunc(list, r[1], func(a userAt, since uint64) int { return cmp.Compare(a.since, since) })
		if !same {
			t.users[k] = slices.Insert(list, i, userAt{r[1], UserFrame{&table.Funcs[r[4]], r[3]}})
		}
	}
}

// UserStack names the addresses of a process's stack, the innermost first, as they were at a time in ns of the recording's clock.
// A frame that nobody named has no UserFunc.
func (t *Trace) UserStack(pid int, time uint64, addrs []uint64) []UserFrame {
	out := make([]UserFrame, len(addrs))
	for i, a := range addrs {
		back := uint64(min(i, 1)) // a return address may be behind its function's end
		list := t.users[userKey{pid, a - back}]
		n, found := slices.BinarySearchFunc(list, time, func(at userAt, time uint64) int { return cmp.Compare(at.since, time) })
		if !found {
			n--
		}
		if len(list) > 0 {
			out[i] = list[max(n, 0)].frame
			out[i].Off += back
		}
	}
	return out
}
