package held

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Socket is an AF_XDP socket of another process, with a descriptor of our own: as long as that is open the kernel keeps the socket, and with it
// the device's queue.
type Socket struct {
	PID    int
	Comm   string
	Inode  uint64
	Theirs int // the process's descriptor
	FD     int
	pidfd  int
	link   string // its descriptor in /proc
}

// Close gives the socket up.
func (s *Socket) Close() {
	if s.FD >= 0 {
		unix.Close(s.FD)
		unix.Close(s.pidfd)
		s.FD, s.pidfd = -1, -1
	}
}

// Gone says that the process has ended, or closed the socket: then ours should be closed, too, for nobody can bind the queue before.
func (s *Socket) Gone() bool {
	if to, err := os.Readlink(s.link); err != nil || to != socketLink(s.Inode) {
		return true
	}
	p := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0
}

// Sockets takes a descriptor of each AF_XDP socket there is, of process pid or if that is 0 of all that may be looked into: those that
// have a ring in their memory. Each socket comes once, with the first process that has it. unseen says which could not be taken, and why.
func Sockets(proc string, pid int) (out []*Socket, unseen []string) {
	dirs := []string{filepath.Join(proc, strconv.Itoa(pid))}
	if pid == 0 {
		dirs, _ = filepath.Glob(filepath.Join(proc, "[0-9]*")) // the pattern is well-formed
	}
	var known []uint64
	for _, d := range dirs {
		inodes := slices.Compact(slices.Sorted(slices.Values(socketsMapped(filepath.Join(d, "maps"), ringOffsets))))
		for _, ino := range inodes {
			if slices.Contains(known, ino) {
				continue
			}
			s, err := take(d, ino)
			switch {
			case err != nil:
				unseen = append(unseen, err.Error())
			case s != nil && s.FD >= 0:
				known = append(known, ino)
				out = append(out, s)
			}
		}
	}
	return out, unseen
}

// ringOffsets are where AF_XDP's rings are mapped (XDP_PGOFF_RX_RING … in include/uapi/linux/if_xdp.h), as proc_pid_maps(5) shows it. Sockets of
// AF_PACKET have rings at 0, too.
var ringOffsets = []string{"00000000", "80000000", fillOffset, "180000000"}

const fillOffset = "100000000"

// socketsMapped lists the inodes of sockets that are mapped at one of these offsets, once for each mapping.
func socketsMapped(path string, offsets []string) (out []uint64) {
	f, err := os.Open(path)
	if err != nil {
		return nil // the process has ended, or is somebody else's
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 6 || !slices.Contains(offsets, fields[2]) {
			continue
		}
		if n, ok := strings.CutPrefix(fields[5], "socket:["); ok {
			if ino, err := strconv.ParseUint(strings.TrimSuffix(n, "]"), 10, 64); err == nil {
				out = append(out, ino)
			}
		}
	}
	return out
}

// socketLink is what the link of a socket's descriptor says (proc_pid_fd(5)).
func socketLink(ino uint64) string { return fmt.Sprintf("socket:[%d]", ino) }

// take finds the descriptor of a socket and gives one of ours; nil if it is none of AF_XDP, or has been closed though its rings stay.
func take(dir string, ino uint64) (*Socket, error) {
	fds, _ := filepath.Glob(filepath.Join(dir, "fd", "*"))
	for _, name := range fds {
		if to, err := os.Readlink(name); err != nil || to != socketLink(ino) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		theirs, _ := strconv.Atoi(filepath.Base(name))
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		s := &Socket{PID: pid, Comm: strings.TrimSpace(string(comm)), Inode: ino, Theirs: theirs, link: name}
		return s, s.open()
	}
	return nil, nil
}

// open takes the descriptor, unless the socket is of another family: then none is there.
func (s *Socket) open() (err error) {
	s.FD = -1
	if s.pidfd, err = unix.PidfdOpen(s.PID, 0); err != nil {
		return fmt.Errorf("open process %s[%d]: %w", s.Comm, s.PID, err)
	}
	if s.FD, err = unix.PidfdGetfd(s.pidfd, s.Theirs, 0); err != nil {
		unix.Close(s.pidfd)
		return fmt.Errorf("take descriptor %d of %s[%d]: %w", s.Theirs, s.Comm, s.PID, err)
	}
	if family, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || family != unix.AF_XDP {
		s.Close()
	}
	return nil
}
