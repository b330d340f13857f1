package guest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// hostRoot is where a guest sees the machine's files.
const hostRoot = "/host"

// shownBin is a folder with nothing but [Self].
const shownBin = "/run/fathom-bin"

// Self is where commands find the init binary when they see this machine's files ([Options.ShareHost]).
const Self = shownBin + "/fathom"

// share9p are the modules that mount a folder of the host; the cloud flavour of Debian's kernels has none.
var share9p = []string{"9p", "9pnet_virtio", "virtio_pci"}

// rootOptions mount a folder that is read-only and does not change meanwhile, workOptions one that does
// (Documentation/filesystems/9p.rst).
const (
	rootOptions = "trans=virtio,version=9p2000.L,msize=262144,cache=loose"
	workOptions = "trans=virtio,version=9p2000.L,msize=262144"
)

// CanShare reports that a kernel can mount folders of this machine.
func (k Kernel) CanShare() (bool, error) {
	dir, err := k.Modules()
	if err != nil {
		return false, err
	}
	return dir.Has("9p") && dir.Has("9pnet_virtio"), nil
}

// ShareHost gives the guest this machine's files, read-only, and the folder work with the right to write; commands then see
// them as they are here. /tmp, /run, /dev, /proc and /sys are the guest's own. work must be absolute; a file system
// mounted below / is seen as far as QEMU may cross it.
func (o *Options) ShareHost(work string) error {
	if ok, err := o.Kernel.CanShare(); err != nil {
		return err
	} else if !ok {
		return &SetupError{
			What: "share this machine's files with the guest", Because: "kernel " + o.Kernel.Release + " has no module 9p",
			Try: []string{"--kernel debian-6.12", "--root none"},
		}
	}
	o.Modules = append(o.Modules, share9p...)
	o.export("root", "/", true)
	o.root(pid1.Mount{Source: "root", Target: hostRoot, Type: "9p", Data: rootOptions})
	if work != "" && work != "/" {
		o.export("work", work, false)
		o.Mounts = append(o.Mounts, pid1.Mount{Source: "work", Target: path.Join(hostRoot, work), Type: "9p", Data: workOptions})
	}
	o.Mounts = append(o.Mounts, pid1.Mount{Source: binDir, Target: path.Join(hostRoot, shownBin), Type: "bind"})
	o.view(work)
	return nil
}

// root mounts what commands see as /, with the guest's own folders in it.
func (o *Options) root(m pid1.Mount) {
	o.Mounts = append(o.Mounts, m)
	for _, dir := range []string{"/proc", "/sys", "/dev", "/tmp", "/run"} {
		o.Mounts = append(o.Mounts, pid1.Mount{Source: dir, Target: path.Join(hostRoot, dir), Type: "bind"})
	}
}

// view lets commands see the root, from a folder of it.
func (o *Options) view(work string) {
	o.View = pid1.Command{Root: hostRoot, Dir: work, Env: []string{"PATH=" + shownBin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	for i := range o.Commands {
		c := &o.Commands[i]
		c.Root, c.Dir, c.Env = o.View.Root, o.View.Dir, append(c.Env, o.View.Env...)
	}
}

// Disk is an image whose file system commands see as /.
type Disk struct {
	Image string // raw or qcow2
	Part  int    // partition; 0 if the image has none
	Type  string // of the file system: ext4, xfs, btrfs
	Init  string // path of the program on it that becomes PID 1, such as /lib/systemd/systemd; none if empty
}

// RootDisk has commands see a disk image's file system as /, and /tmp, /run, /dev, /proc and /sys of the guest. What they
// write to it is forgotten at the end: the image stays as it is.
func (o *Options) RootDisk(d Disk) error {
	dir, err := o.Kernel.Modules()
	if err != nil {
		return err
	}
	for _, m := range []string{"virtio_pci", "virtio_blk", d.Type} {
		if !dir.Has(m) {
			return &SetupError{What: "use disk " + d.Image, Because: "kernel " + o.Kernel.Release + " has no module " + m, Try: []string{"--kernel debian-6.12"}}
		}
		o.Modules = append(o.Modules, m)
	}
	format, err := imageFormat(d.Image)
	if err != nil {
		return err
	}
	dev := "/dev/vda"
	if d.Part != 0 {
		dev += strconv.Itoa(d.Part)
	}
	o.QEMUArgs = append(o.QEMUArgs, "-drive", "file="+strings.ReplaceAll(d.Image, ",", ",,")+",format="+format+",if=virtio,snapshot=on")
	o.root(pid1.Mount{Source: dev, Target: hostRoot, Type: d.Type})
	o.Mounts = append(o.Mounts, pid1.Mount{Source: binDir, Target: path.Join(hostRoot, shownBin), Type: "bind"})
	o.view("/")
	if d.Init != "" {
		if !path.IsAbs(d.Init) {
			return &SetupError{What: "boot disk " + d.Image, Because: "init " + d.Init + " is not an absolute path", Try: []string{"--init /sbin/init"}}
		}
		o.takeOver = pid1.Command{Args: []string{d.Init}, Root: hostRoot}
		o.View.Root = pid1.InitRoot
		for i := range o.Commands {
			o.Commands[i].Root = pid1.InitRoot
		}
	}
	return nil
}

// imageFormat tells qcow2 (docs/interop/qcow2.txt: "QFI\xfb") from raw.
func imageFormat(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", &SetupError{What: "use disk " + name, Because: err.Error(), Err: err}
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil {
		return "", &SetupError{What: "use disk " + name, Because: "it is shorter than 4 bytes", Err: err}
	}
	if string(magic[:]) == "QFI\xfb" {
		return "qcow2", nil
	}
	return "raw", nil
}

// export shares a folder under a tag.
func (o *Options) export(tag, dir string, readonly bool) {
	fs := "local,id=" + tag + ",security_model=none,multidevs=remap,path=" + dir
	if readonly {
		fs += ",readonly=on"
	}
	o.QEMUArgs = append(o.QEMUArgs, "-fsdev", fs, "-device", "virtio-9p-pci,fsdev="+tag+",mount_tag="+tag)
}

// NIC is a network card of a guest.
type NIC struct {
	Model  string // virtio, e1000e, igb (QEMU 8), or any device of QEMU
	Queues int    // of virtio; 1 if 0
	Net    string // "user", "none", or "tap:NAME" for a device of this machine
	MAC    string
}

// models are QEMU's names of cards, and the modules that drive them.
var models = map[string]struct {
	device  string
	modules []string
}{
	"virtio": {"virtio-net-pci", []string{"virtio_net"}},
	"e1000e": {"e1000e", []string{"e1000e"}},
	"igb":    {"igb", []string{"igb"}},
}

// hasDevice asks QEMU if it has a device.
func (o *Options) hasDevice(name string) error {
	qemu := o.QEMU
	if qemu == "" {
		qemu = defaultQEMU
	}
	list, err := exec.Command(qemu, "-device", "help").Output()
	if err != nil || strings.Contains(string(list), `name "`+name+`"`) {
		return nil // if there is no QEMU, starting it will tell
	}
	version, _ := exec.Command(qemu, "--version").Output()
	line, _, _ := strings.Cut(string(version), "\n")
	return &SetupError{What: "add network card " + name, Because: "it is not in " + line + " (igb came with 8.0)", Try: []string{"--nic e1000e", "--nic virtio"}}
}

// AddNIC gives the guest a card. Its driver is loaded if the kernel has it.
func (o *Options) AddNIC(n NIC) error {
	m, ok := models[n.Model]
	if !ok {
		return fmt.Errorf("network card %q: there are virtio, e1000e and igb", n.Model)
	}
	dir, err := o.Kernel.Modules()
	if err != nil {
		return err
	}
	if n.Model != "virtio" {
		if err := o.hasDevice(m.device); err != nil {
			return err
		}
	}
	for _, mod := range m.modules {
		if !dir.Has(mod) {
			return &SetupError{What: "add network card " + n.Model, Because: "kernel " + o.Kernel.Release + " has no module " + mod, Try: []string{"--nic virtio"}}
		}
		o.Modules = append(o.Modules, mod)
	}
	if n.Model != "virtio" && n.Queues > 1 {
		return fmt.Errorf("network card %s: QEMU gives it queues of its own; only virtio takes a number", n.Model)
	}
	id := "nic" + strconv.Itoa(len(o.QEMUArgs))
	dev := m.device + ",netdev=" + id
	back := "user,id=" + id
	switch {
	case len(n.Net) > 4 && n.Net[:4] == "tap:":
		back = "tap,id=" + id + ",ifname=" + n.Net[4:] + ",script=no,downscript=no"
		if n.Queues > 1 {
			back += ",queues=" + strconv.Itoa(n.Queues)
		}
	case n.Net == "none":
		back = "hubport,id=" + id + ",hubid=0"
	case n.Net != "user":
		return fmt.Errorf("network %q: there are user, none and tap:NAME", n.Net)
	}
	if n.Queues > 1 {
		if n.Net != "tap:"+n.Net[min(4, len(n.Net)):] {
			return fmt.Errorf("network %q: only a tap has several queues", n.Net)
		}
		dev += ",mq=on,vectors=" + strconv.Itoa(2*n.Queues+2)
	}
	if n.MAC != "" {
		dev += ",mac=" + n.MAC
	}
	o.QEMUArgs = append(o.QEMUArgs, "-netdev", back, "-device", dev)
	return nil
}
