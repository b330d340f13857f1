package record

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/traceevent"
)

// brief runs a workload that is a program of its own, which is removed when the recorder has been told of it.
func brief(t *testing.T, r *Recorder, n int) {
	t.Helper()
	cmd := workload(t, n)
	self := cmd.Path
	cmd.Path = filepath.Join(t.TempDir(), "brief")
	if err := os.Link(self, cmd.Path); err != nil { // on another file system
		b, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cmd.Path, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("workload: %v %s", err, out)
	}
	r.users.drain()
	if err := os.Remove(cmd.Path); err != nil {
		t.Fatal(err)
	}
}

// TestUserStacks: functions of programs have their names in a recording that is looked at elsewhere, of programs too that ended, and were
// removed, while it was made. Each segment has its own.
func TestUserStacks(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	const n = 100
	dir := t.TempDir()
	r, err := Start(Options{Dir: filepath.Join(dir, "a"), Leases: leases(t), Events: []Spec{{Pattern: "syscall:getppid"}}, Stacks: Stacks{User: true}})
	if err != nil {
		t.Fatal(err)
	}
	brief(t, r, n)
	first, err := r.Rotate(filepath.Join(dir, "b"), nil)
	if err != nil {
		t.Fatal(err)
	}
	brief(t, r, n)
	last, err := r.End()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Segment{first, last} {
		acc, err := s.Finish()
		if err != nil || !acc.Exact || acc.Missed > 0 {
			t.Fatalf("%s: %+v, %v", s.Dir, acc, err)
		}
		tr, err := Open(s.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		named, entered := 0, false
		for e := range traceevent.All(tr.Events()) {
			if e.Format.Name == "sys_enter" {
				entered = e.Format.Field("id").Int(e.Rec) == unix.SYS_GETPPID
			}
			if !entered || !e.Format.IsUserStack() {
				continue
			}
			frames := tr.UserStack(int(e.Format.Field("tgid").Uint(e.Rec)), e.Time, traceevent.Addresses(e.Format.Field("caller").Bytes(e.Rec)))
			if slices.ContainsFunc(frames, func(f UserFrame) bool {
				return f.UserFunc != nil && f.Name == calledName && strings.HasSuffix(f.File, "/brief") && f.Start > 0
			}) {
				named++
			}
		}
		if named < n || len(tr.Notes) > 0 {
			t.Errorf("%s: %d of %d stacks have the function's name; %v", filepath.Base(s.Dir), named, n, tr.Notes)
		}
		copied := filepath.Join(dir, "copy of "+filepath.Base(s.Dir))
		x, err := NewExport(copied, tr, tr.Formats)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(copied)
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
		if d := cmp.Diff(tr.users, again.users, cmp.AllowUnexported(userKey{}, userAt{})); d != "" || len(again.users) == 0 {
			t.Errorf("an export has %d names of %d: %s", len(again.users), len(tr.users), d)
		}
	}
}

// FuzzUsers: whatever stands in users.json, names are looked up in bounds.
func FuzzUsers(f *testing.F) {
	f.Add([]byte(`{"note":"n","funcs":[{"name":"f","file":"/a","build":"00","start":16}],"rows":[[7,0,4096,1,0],[7,50,4096,2,0],[7,9,1,1,99]]}`))
	f.Add([]byte(`{"rows":[[18446744073709551615,1,0,0,0]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var table userTable
		if json.Unmarshal(b, &table) != nil {
			return
		}
		tr := &Trace{}
		tr.addUsers(&table)
		for _, r := range table.Rows {
			got := tr.UserStack(int(r[0]), r[1], []uint64{r[2], r[2] + 1})
			if len(got) != 2 || r[4] < uint64(len(table.Funcs)) && got[0].UserFunc == nil {
				t.Errorf("%v: %+v", r, got)
			}
		}
	})
}

// TestUserTimes: an address means what it did at the time, and before anything is known what it meant first.
func TestUserTimes(t *testing.T) {
	tr := &Trace{}
	tr.addUsers(&userTable{Funcs: []UserFunc{{Name: "f"}, {Name: "g"}}, Rows: []userRow{{7, 500, 4096, 2, 1}, {7, 100, 4096, 1, 0}, {8, 0, 4096, 9, 5}}})
	tr.addUsers(&userTable{Funcs: []UserFunc{{Name: "h"}}, Rows: []userRow{{7, 900, 4096, 3, 0}}}) // of another segment
	for time, want := range map[uint64]string{0: "f", 100: "f", 499: "f", 500: "g", 899: "g", 1000: "h"} {
		if got := tr.UserStack(7, time, []uint64{4096, 4097}); got[0].UserFunc == nil || got[0].Name != want || got[1].Name != want || got[1].Off != got[0].Off+1 {
			t.Errorf("at %d: %+v, want %s", time, got, want)
		}
	}
	if got := tr.UserStack(8, 0, []uint64{4096}); got[0].UserFunc != nil {
		t.Errorf("an address without a function: %+v", got)
	}
}
