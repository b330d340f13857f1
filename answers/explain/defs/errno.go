package defs

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Errno is an error number of the kernel.
type Errno struct {
	Number int    `json:"number"`
	Name   string `json:"name"`
	Text   string `json:"text"`
	// Inside says that programs never see it: the kernel keeps it to itself.
	Inside bool `json:"inside,omitempty"`
}

// inside are the errnos of include/linux/errno.h.
var inside = []Errno{
	{512, "ERESTARTSYS", "a signal came: begin the system call again, or give EINTR, as the handler wants it", true},
	{513, "ERESTARTNOINTR", "a signal came: begin the system call again whatever the handler wants", true},
	{514, "ERESTARTNOHAND", "a signal came: begin the system call again only if nobody handles it, else give EINTR", true},
	{515, "ENOIOCTLCMD", "nobody knows this ioctl here: the next layer is asked, and a program gets ENOTTY", true},
	{516, "ERESTART_RESTARTBLOCK", "a signal came: go on by restart_syscall(2) with what was kept", true},
	{517, "EPROBE_DEFER", "a driver waits for another device: its probe is tried again", true},
	{518, "EOPENSTALE", "what open(2) found is stale: the path is walked again", true},
	{519, "ENOPARAM", "no such mount parameter", true},
	{521, "EBADHANDLE", "NFS: the file handle is none", true},
	{522, "ENOTSYNC", "NFS: the update cannot be synchronised", true},
	{523, "EBADCOOKIE", "NFS: the position in a folder is stale", true},
	{524, "ENOTSUPP", "the operation is not supported; programs that see it, as number 524, have met a defect of a driver", true},
	{525, "ETOOSMALL", "NFS: the buffer or request is too small", true},
	{526, "ESERVERFAULT", "NFS: the server failed in a way of its own", true},
	{527, "EBADTYPE", "NFS: the server does not support that type", true},
	{528, "EJUKEBOX", "NFS: the request takes its time, ask again later", true},
	{529, "EIOCBQUEUED", "an asynchronous operation was begun: its end is told later", true},
	{530, "ERECALLCONFLICT", "NFS: a delegation that is in the way is being called back", true},
	{531, "ENOGRACE", "NFS: there is no grace period to reclaim in", true},
}

// NewErrno finds an errno by its name or its number, with or without a minus. ok is false if there is none.
func NewErrno(text string) (e Errno, ok bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(text, "-"))
	for _, e := range inside {
		if e.Name == text || err == nil && e.Number == n {
			return e, true
		}
	}
	for no := unix.Errno(1); no < 512; no++ {
		if name := unix.ErrnoName(no); name != "" && (name == text || err == nil && int(no) == n) {
			return Errno{Number: int(no), Name: name, Text: no.Error()}, true
		}
	}
	// Other names of the same numbers.
	switch text {
	case "EWOULDBLOCK":
		return NewErrno("EAGAIN")
	case "EDEADLOCK":
		return NewErrno("EDEADLK")
	case "ENOTSUP":
		return NewErrno("EOPNOTSUPP")
	}
	return e, false
}
