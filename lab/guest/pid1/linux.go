package pid1

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Linux is the [System] of a real guest. It must not be used outside one: it powers the machine off.
type Linux struct{}

// ReadFile reads a file of the guest.
func (Linux) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }

// Glob lists files that match a pattern.
func (Linux) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }

// Open opens a file for reading.
func (Linux) Open(name string) (fs.File, error) { return os.Open(name) }

// Mkdir makes a folder and its parents. One that is there is left as it is, also where nothing can be made.
func (Linux) Mkdir(dir string) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	return os.MkdirAll(dir, 0o755)
}

// Symlink makes a symbolic link, which may be there already.
func (Linux) Symlink(target, name string) error {
	if err := os.Symlink(target, name); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Mount mounts a file system, or with type "bind" a folder with all that is mounted below it; EBUSY means that the kernel did it already (CONFIG_DEVTMPFS_MOUNT).
func (Linux) Mount(source, target, fstype, data string) error {
	var flags uintptr
	if fstype == "bind" {
		flags, fstype = unix.MS_BIND|unix.MS_REC, ""
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != unix.EBUSY {
		return err
	}
	return nil
}

// SetHostname names the guest.
func (Linux) SetHostname(name string) error { return unix.Sethostname([]byte(name)) }

// LinkUp sets IFF_UP on a network device.
func (Linux) LinkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("link %s up: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("link %s up: %w", name, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("link %s up: %w", name, err)
	}
	return nil
}

// LoadModule is finit_module.
func (Linux) LoadModule(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), params, 0)
}

// UnloadModule is delete_module.
func (Linux) UnloadModule(name string) error { return unix.DeleteModule(name, unix.O_NONBLOCK) }

// portWait is how long a port may take to appear: the console driver makes it when the host has answered.
const portWait = 10 * time.Second

// OpenPort opens a virtio port, or a serial one for bytes as they are.
func (Linux) OpenPort(name string) (io.ReadWriteCloser, error) {
	deadline := time.Now().Add(portWait)
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	// ENOENT: not made yet; ENXIO: the node is there before the port is on the driver's list (port_fops_open).
	for (err == unix.ENOENT || err == unix.ENXIO) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
		fd, err = unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if err := raw(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: raw mode: %w", name, err)
	}
	return port(fd), nil
}

// raw takes a terminal out of the way of our bytes; what is no terminal needs nothing.
func raw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// port is a file descriptor written without Go's poller: one that blocks until the host took the bytes.
type port int

func (p port) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := unix.Write(int(p), b[n:])
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return n, err
		default:
			n += m
		}
	}
	return len(b), nil
}

// Read gives what the host sent; io.EOF when the host is gone.
func (p port) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(p), b)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Close waits until all is sent (tcdrain).
func (p port) Close() error {
	unix.IoctlSetInt(int(p), unix.TCSBRK, 1)
	return unix.Close(int(p))
}

// Pipe makes a pipe for a command's output.
func (Linux) Pipe() (io.ReadCloser, *os.File, error) {
	r, w, err := os.Pipe()
	return r, w, err
}

// Create makes a file, or empties one.
func (Linux) Create(name string, mode fs.FileMode) (io.WriteCloser, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Kill sends a signal.
func (Linux) Kill(pid int, sig syscall.Signal) error { return syscall.Kill(pid, sig) }

// Start starts a command in its own session, with /dev/null as input if it has none. It does not go through os/exec: that would wait for
// its child itself, and we wait for all.
func (Linux) Start(c Command, stdin, stdout, stderr *os.File) (int, error) {
	if stdin == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return 0, err
		}
		defer null.Close()
		stdin = null
	}
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	return syscall.ForkExec(c.Args[0], c.Args, &syscall.ProcAttr{
		Dir: dir, Env: c.Env,
		Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Chroot: c.Root},
	})
}

// Wait is wait4(-1).
func (Linux) Wait() (int, syscall.WaitStatus, error) {
	var ws syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &ws, 0, nil)
	return pid, ws, err
}

// Complain writes to the console.
func (Linux) Complain(err error) { fmt.Fprintln(os.Stderr, err) }

// Release is uname -r.
func (Linux) Release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Uptime is the time since boot in seconds.
func (Linux) Uptime() float64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return float64(t.Nano()) / 1e9
}

// PowerOff syncs and ends the machine, refusing to if this is not PID 1, nor its agent.
func (Linux) PowerOff() error {
	if os.Getpid() != 1 && !isAgent() {
		return errors.New("power off: not PID 1")
	}
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
