package core

import (
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// files prints the open files of tasks; with -R those that are what is named: a descriptor, path, inode number, or the address
// of a struct file, dentry or inode.
func (s *Session) files(w io.Writer, args []string) error {
	o, err := parse(args, "", "R")
	if err != nil {
		return err
	}
	tasks, err := s.of(o.rest)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		files, err := walk.Files(t)
		if o.on['R'] {
			files = slices.DeleteFunc(files, func(f walk.File) bool { return !refers(f, o.val['R']) })
			if len(files) == 0 && err == nil {
				continue
			}
		}
		s.taskLine(w, t)
		if root, cwd, err := walk.Places(t); err == nil && !o.on['R'] {
			fmt.Fprintf(w, "ROOT: %s  CWD: %s\n", root, cwd)
		}
		for _, f := range files {
			fmt.Fprintf(w, "%4d %016x %10d  %s\n", f.FD, f.Addr, f.Inode, f.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refers says that a file is what -R names.
func refers(f walk.File, ref string) bool {
	if n, ok := number(ref); ok {
		return n == f.Addr || n == f.Dentry || n == f.InodeAddr || n == f.Inode || f.FD >= 0 && n == uint64(f.FD)
	}
	return f.Path == ref || path.Base(f.Path) == ref
}

// fuser prints who uses a file: has it open, is in it, or runs or maps it.
func (s *Session) fuser(w io.Writer, args []string) error {
	if len(args) != 1 {
		return &Usage{}
	}
	tasks, err := s.allTasks()
	n := 0
	for _, t := range tasks {
		if t.PID != t.TGID {
			continue
		}
		var how []string
		files, ferr := walk.Files(t)
		for _, f := range files {
			fd := f.FD
			if f.FD = -1; refers(f, args[0]) { // a number is a file's, not a descriptor
				how = append(how, fmt.Sprintf("fd %d", fd))
			}
		}
		if root, cwd, err := walk.Places(t); err == nil {
			if cwd == args[0] {
				how = append(how, "cwd")
			}
			if root == args[0] {
				how = append(how, "root")
			}
		}
		errs := &kernel.Errors{}
		for v := range walk.Areas(t, errs) {
			if f := v.Get("vm_file"); f.Uint() != 0 && walk.Path(f.Get("f_path")) == args[0] {
				how = append(how, "mmap")
				break
			}
		}
		if len(how) > 0 {
			n++
			fmt.Fprintf(w, "%7d %016x %-16q %v\n", t.PID, t.Addr, t.Comm, how)
		}
		if err == nil {
			err = ferr
		}
	}
	if n == 0 && err == nil {
		return fmt.Errorf("nobody uses %s", args[0])
	}
	return err
}
