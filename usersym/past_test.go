package usersym

import (
	"debug/elf"
	"testing"

	"golang.org/x/sys/unix"
)

// told has a process map a file's code at a place.
func told(t *testing.T, r *Resolver, pid int, when, start uint64, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			r.Mapped(pid, when, Mapping{Start: start, Len: (p.Filesz + 4095) &^ 4095, Offset: p.Off, Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev), Inode: st.Ino, Path: path})
		}
	}
}

// TestPast names addresses of processes that are no more by what they had mapped at a time: before and after execve, of the process
// that had the number before, and of a library that took the place of another.
func TestPast(t *testing.T) {
	const pid, other, at = 1<<22 + 7, 1<<22 + 8, 0x7f0000000000 // no number that a process can have
	a, b := compile(t, "a"), compile(t, "b", "-Dhello=renamed")
	r := New(Options{})
	defer r.Close()
	r.Exec(pid, 100)
	told(t, r, pid, 101, at, a)
	r.Exec(pid, 200)
	told(t, r, pid, 201, at, b)
	r.Forked(pid, other, 250)
	r.Forked(1<<22+9, pid, 300) // of a parent that nobody knows
	r.Exec(pid, 301)
	told(t, r, pid, 302, at, a)
	told(t, r, pid, 400, at, b)
	fns := nm(t, a)
	hello := symbol(t, fns, "hello")
	f, err := elf.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	addr := hello.addr + at
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			addr -= p.Vaddr
		}
	}
	if got := symbol(t, nm(t, b), "renamed").addr; got != hello.addr {
		t.Fatalf("the functions are at %x and %x: they should be at one place", hello.addr, got)
	}
	for _, tt := range []struct {
		pid         int
		when, epoch uint64
		want        string
	}{
		{pid, 150, 100, "hello"}, {pid, 199, 100, "hello"}, {pid, 250, 200, "renamed"}, {pid, 350, 301, "hello"}, {pid, 500, 400, "renamed"},
		{pid, 50, 0, "hello"}, {other, 260, 250, "renamed"}, {1<<22 + 10, 260, 0, ""},
	} {
		got, _ := r.ResolveAt(tt.pid, tt.when, addr)
		if epoch := r.Epoch(tt.pid, tt.when); got.Name != tt.want || epoch != tt.epoch || tt.want != "" && got.Build == "" {
			t.Errorf("process %d at %d: %+v since %d, want %s since %d", tt.pid, tt.when, got, epoch, tt.want, tt.epoch)
		}
	}
	if now, _ := r.Resolve(pid, addr); now.Name != "renamed" {
		t.Errorf("now: %+v", now)
	}
}
