// Package held says who has what AF_XDP and XDP want: which program is on a device, by which link or pin, of which process.
package held

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Program is an XDP program on a device.
type Program struct {
	Ifindex int      `json:"ifindex"`
	Mode    string   `json:"mode"` // "native", "generic", "offload"
	ID      uint32   `json:"id"`
	Name    string   `json:"name,omitempty"`
	Tag     string   `json:"tag,omitempty"`
	Link    uint32   `json:"link,omitempty"`   // number of the bpf_link that attached it; 0: by netlink, and it stays until it is detached
	Owners  []string `json:"owners,omitempty"` // processes that hold the link or the program: "comm[pid]"
	Pin     string   `json:"pin,omitempty"`    // where the link, or else the program, has a name
}

// String describes the program on one line.
func (p Program) String() string {
	s := fmt.Sprintf("program %q (id %d, tag %s, %s)", p.Name, p.ID, p.Tag, p.Mode)
	switch {
	case p.Link != 0 && len(p.Owners) > 0:
		s += fmt.Sprintf(", attached by link %d of %s", p.Link, strings.Join(p.Owners, ", "))
	case p.Link != 0 && p.Pin != "":
		s += fmt.Sprintf(", attached by link %d, pinned as %s", p.Link, p.Pin)
	case p.Link != 0:
		s += fmt.Sprintf(", attached by link %d, which is pinned where it cannot be seen from here, or held by a process that cannot", p.Link)
	case len(p.Owners) > 0:
		s += ", attached for good; held by " + strings.Join(p.Owners, ", ")
	default:
		s += ", attached for good"
	}
	return s
}

// Error says that a device has an XDP program already. It is never removed for the asker.
type Error struct {
	Device   string
	Programs []Program
	Err      error // of the attempt
}

// Error names the programs.
func (e *Error) Error() string {
	var parts []string
	for _, p := range e.Programs {
		parts = append(parts, p.String())
	}
	return fmt.Sprintf("attach XDP program to %s: it has one, and it stays: %s", e.Device, strings.Join(parts, "; "))
}

// Unwrap gives the kernel's error.
func (e *Error) Unwrap() error { return e.Err }

// Try gives ways on.
func (e *Error) Try() []string {
	dev, ns, in := strings.Cut(e.Device, "@")
	where := ""
	if in {
		where = " --netns " + ns
	}
	try := []string{"fathom bypass status" + where}
	for _, p := range e.Programs {
		if p.Link == 0 {
			try = append(try, fmt.Sprintf("fathom bypass prog detach -i %s%s --id %d", dev, where, p.ID))
		} else if p.Pin != "" && len(p.Owners) == 0 {
			if strings.HasSuffix(filepath.Dir(p.Pin), "/fathom/bpf") { // where package prog pins
				try = append(try, "fathom bypass prog detach -i "+dev+where)
			} else {
				try = append(try, "rm "+p.Pin)
			}
		} else if len(p.Owners) > 0 {
			try = append(try, fmt.Sprintf("end %s: the program goes with it", p.Owners[0]))
		}
	}
	return try
}

// Look says if an attempt to attach failed because of another program: nil if not. The calling thread is in the device's
// namespace.
func Look(device string, ifindex int, err error) error {
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
		return nil
	}
	ps, lerr := On(ifindex)
	if lerr != nil || len(ps) == 0 {
		return nil
	}
	return &Error{device, ps, err}
}

// On lists the XDP programs of a device of the calling thread's namespace.
func On(ifindex int) ([]Program, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list XDP programs: %w", err)
	}
	defer h.Close()
	l, err := h.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("list XDP programs of device %d: %w", ifindex, err)
	}
	x := l.Attrs().Xdp
	if x == nil || !x.Attached {
		return nil, nil
	}
	mode := map[uint32]string{attachedDrv: "native", attachedSkb: "generic", attachedHw: "offload"}[x.AttachMode]
	ps := []Program{{Ifindex: ifindex, Mode: mode, ID: x.ProgId}}
	for i := range ps {
		ps[i].describe()
	}
	return ps, nil
}

// describe adds what the kernel tells of a program, and who holds it.
func (p *Program) describe() {
	if prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(p.ID)); err == nil {
		if info, err := prog.Info(); err == nil {
			p.Name, p.Tag = info.Name, info.Tag
		}
		prog.Close()
	}
	p.Link = linkOf(p.ID, p.Ifindex)
	p.Owners = owners("/proc", p.ID, p.Link)
	p.Pin = pinOf(p.ID, p.Link)
}

// linkOf finds the link that attached a program to a device, 0 if there is none. A number of a device may be one of another
// namespace, too; a program that is attached to both is found in either.
func linkOf(prog uint32, ifindex int) uint32 {
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil || info.Type != link.XDPType || uint32(info.Program) != prog {
			continue
		}
		if x := info.XDP(); x != nil && int(x.Ifindex) == ifindex {
			return uint32(info.ID)
		}
	}
	return 0
}

// owners lists processes that hold a program or a link, by their descriptors (bpf_prog_show_fdinfo and bpf_link_show_fdinfo in
// kernel/bpf/syscall.c). Those of other users are seen by root only.
func owners(proc string, prog, link uint32) []string {
	var out []string
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fdinfo", "*"))
	for _, f := range files {
		holdsProg, holdsLink := scanFdinfo(f, prog, link)
		if link != 0 && !holdsLink || link == 0 && !holdsProg {
			continue
		}
		pid := filepath.Base(filepath.Dir(filepath.Dir(f)))
		comm, _ := os.ReadFile(filepath.Join(proc, pid, "comm"))
		if name := fmt.Sprintf("%s[%s]", strings.TrimSpace(string(comm)), pid); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// scanFdinfo says whether a descriptor is of a program, or of a link.
func scanFdinfo(path string, prog, link uint32) (holdsProg, holdsLink bool) {
	f, err := os.Open(path)
	if err != nil {
		return false, false // it is closed by now
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		k, v, _ := strings.Cut(sc.Text(), ":")
		n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32)
		if err != nil {
			continue
		}
		switch k {
		case "prog_id":
			holdsProg = uint32(n) == prog
		case "link_id":
			holdsLink = uint32(n) == link
		}
	}
	return holdsProg, holdsLink
}

// Places of a program (XDP_ATTACHED_… in include/uapi/linux/if_link.h).
const (
	attachedDrv = 1
	attachedSkb = 2
	attachedHw  = 3
)

// Describe adds to a program, known by device and number, what the kernel tells of it, who holds it, and where it is pinned.
func Describe(p *Program) { p.describe() }
