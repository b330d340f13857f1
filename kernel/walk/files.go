package walk

import (
	"errors"
	"fmt"
	"iter"
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
	Inode uint64 // its number
	Path  string // as /proc/PID/fd shows it

	InodeAddr, Dentry uint64 // of its struct inode and struct dentry
}

// maxFDs bounds a table of descriptors.
const maxFDs = 1 << 20

// Files reads the open files of a task.
func Files(task Task) ([]File, error) {
	errs := &kernel.Errors{}
	var out []File
	for fd, f := range Descriptors(task, errs) {
		out = append(out, File{FD: fd, Addr: f.Addr, Inode: f.Get("f_inode.i_ino").Uint(), Path: Path(f.Get("f_path")),
			InodeAddr: f.Get("f_inode").Uint(), Dentry: f.Get("f_path.dentry").Uint()})
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk files of pid %d: %w (%d reads failed)", task.PID, err, errs.N)
	}
	return out, nil
}

// Places gives the root and the working directory of a task. A task that has exited has none.
func Places(task Task) (root, cwd string, err error) {
	errs := &kernel.Errors{}
	v := kernel.Object(task.Value.Target(), errs, "struct task_struct", task.Addr)
	if v.Get("fs").Uint() == 0 {
		return "", "", fmt.Errorf("pid %d has exited: it is in no directory", task.PID)
	}
	root, cwd = Path(v.Get("fs.root")), Path(v.Get("fs.pwd"))
	return root, cwd, errs.Take()
}

// Descriptors goes over the open files of a task: the number and the struct file of each. A task that has exited has none.
func Descriptors(task Task, errs *kernel.Errors) iter.Seq2[int, kernel.Value] {
	return func(yield func(int, kernel.Value) bool) {
		v := kernel.Object(task.Value.Target(), errs, "struct task_struct", task.Addr)
		if v.Get("files").Uint() == 0 {
			return
		}
		fdt, lost := v.Get("files.fdt").Deref(), newAstray(errs)
		for fd := range min(fdt.Get("max_fds").Int(), maxFDs) {
			f := fdt.Get("fd").At(fd)
			empty := f.Uint() == 0
			if !empty && isFile(f.Deref(), lost) && !yield(fd, f.Deref()) || lost.far(empty) {
				return
			}
		}
	}
}

var errNoFile = errors.New("a descriptor that leads to no file")

// isFile says if a struct file is one to show: what it does is known from the moment that it has a descriptor. A dump may lack some
// files that are open; where very many are missing, they are none, and what is one must have its name's inode.
func isFile(f kernel.Value, lost *astray) bool {
	const few = 256
	if int64(f.Addr) >= 0 || f.Addr%8 != 0 {
		lost.errs.Add(errNoFile)
		return false
	}
	before := lost.errs.N
	op := f.Get("f_op").Uint()
	if lost.errs.N > before {
		return lost.bad < few
	}
	good := int64(op) < 0
	if good && lost.bad >= few {
		inode := f.Get("f_inode").Uint()
		good = inode != 0 && inode == f.Get("f_path.dentry").Deref().Get("d_inode").Uint()
	}
	if !good {
		lost.errs.Add(errNoFile)
	}
	return good
}

// Path is d_path of a struct path: what lives in no directory has a name made of its file system and inode.
func Path(p kernel.Value) string {
	dentry, vfsmount := p.Get("dentry").Deref(), p.Get("mnt").Deref()
	ino := dentry.Get("d_inode.i_ino").Uint()
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
