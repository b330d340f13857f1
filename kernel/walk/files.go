package walk

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
)

// Mount is a mounted file system.
type Mount struct {
	Addr   uint64
	Device string
	Dir    string
	Type   string
	ID     int
}

// Mounts reads the mounts of init's mount namespace.
func Mounts(t kernel.Target) ([]Mount, error) {
	errs := &kernel.Errors{}
	ns := kernel.Global(t, errs, "struct task_struct", "init_task").Get("nsproxy.mnt_ns").Deref()
	var out []Mount
	add := func(m kernel.Value) {
		if m.Get("mnt_ns").Uint() != ns.Addr {
			return // a cursor of somebody who reads /proc/mounts
		}
		out = append(out, Mount{Addr: m.Addr, Device: m.Get("mnt_devname").String(), ID: m.Get("mnt_id").Int(),
			Type: m.Get("mnt.mnt_sb.s_type.name").String(), Dir: path(m.Get("mnt_mountpoint").Deref(), m.Get("mnt_parent").Deref())})
	}
	if ns.Has("list") { // until 6.7; "mounts" was a number then
		for m := range ns.Get("list").List("struct mount", "mnt_list") {
			add(m)
		}
	} else {
		for m := range RBTree(ns.Get("mounts"), "struct mount", "mnt_node") {
			add(m)
		}
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk mounts: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// maxDepth bounds a path, whose links a crash may have made a circle.
const maxDepth = 256

// path writes the path of a dentry on a mount, up to the root of all mounts.
func path(dentry, mount kernel.Value) string {
	var parts []string
	for range maxDepth {
		if !dentry.OK() || !mount.OK() {
			break
		}
		if root := mount.Get("mnt.mnt_root").Uint(); dentry.Addr == root {
			parent := mount.Get("mnt_parent").Uint()
			if parent == mount.Addr {
				break
			}
			dentry, mount = mount.Get("mnt_mountpoint").Deref(), mount.Get("mnt_parent").Deref()
			continue
		}
		parent := dentry.Get("d_parent").Uint()
		if parent == dentry.Addr {
			break
		}
		parts = append(parts, dentry.Get("d_name.name").String())
		dentry = dentry.Get("d_parent").Deref()
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// File is an open file of a task.
type File struct {
	FD    int
	Addr  uint64
	Inode uint64
	Path  string // as /proc/PID/fd shows it
}

// maxFDs bounds a table of descriptors.
const maxFDs = 1 << 20

// Files reads the open files of a task.
func Files(task Task) ([]File, error) {
	v := task.Value
	if v.Get("files").Uint() == 0 {
		return nil, nil
	}
	t, errs := v.Target(), &kernel.Errors{}
	fdt := kernel.Object(t, errs, "struct task_struct", v.Addr).Get("files.fdt").Deref()
	n := min(fdt.Get("max_fds").Int(), maxFDs)
	var out []File
	for fd := range n {
		f := fdt.Get("fd").At(fd)
		if f.Uint() == 0 {
			continue
		}
		f = f.Deref()
		file := File{FD: fd, Addr: f.Addr, Inode: f.Get("f_inode.i_ino").Uint()}
		dentry, mnt := f.Get("f_path.dentry").Deref(), f.Get("f_path.mnt").Deref()
		file.Path = filePath(dentry, mnt, file.Inode)
		out = append(out, file)
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk files of pid %d: %w (%d reads failed)", task.PID, err, errs.N)
	}
	return out, nil
}

// filePath is d_path: what lives in no directory has a name made of its file system and inode.
func filePath(dentry, vfsmount kernel.Value, ino uint64) string {
	name := dentry.Get("d_name.name").String()
	switch dentry.Get("d_sb.s_type.name").String() {
	case "pipefs":
		return fmt.Sprintf("pipe:[%d]", ino)
	case "sockfs":
		return fmt.Sprintf("socket:[%d]", ino)
	case "anon_inodefs":
		return "anon_inode:" + name
	}
	m := vfsmount.Cast("struct mount")
	return path(dentry, m.Shift(vfsmount.Addr-m.Shift(0).Get("mnt").Addr))
}
