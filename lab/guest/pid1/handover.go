package pid1

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A guest whose job names a program as [Job.Init] is taken over by it: PID 1 moves to that program's root and becomes it,
// as switch_root(8) does, and a child that was started before does the job. What the child runs sees [InitRoot].

// InitRoot is where commands find the root of a guest that was handed over.
const InitRoot = "/proc/1/root"

// agentEnv tells the child what it is. Commands are not given it.
const agentEnv = "FATHOM_GUEST_AGENT"

// The child's ends of two pipes: through one it says that all is mounted, the other ends when PID 1 has become another
// program, or says why not.
const (
	mountedFD = 3
	becameFD  = 4
)

// takeOver is PID 1 of a guest that is handed over. It returns only if it could not become c.
func takeOver(c Command) error {
	mounted, mountedW, err := os.Pipe()
	if err != nil {
		return err
	}
	becameR, became, err := os.Pipe() // closes itself at exec
	if err != nil {
		return err
	}
	_, err = syscall.ForkExec("/init", []string{"@fathom"}, &syscall.ProcAttr{ // "@": systemd(1) lets it live until the end
		Dir: "/", Env: append(environ(nil), agentEnv+"=1"), Files: []uintptr{0, 1, 2, mountedW.Fd(), becameR.Fd()},
	})
	mountedW.Close()
	becameR.Close()
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	if _, err := mounted.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("the agent did not mount the root: %w", err)
	}
	err = become(c)
	fmt.Fprint(became, err)
	became.Close()
	for { // the agent ends the guest
		if _, _, err := (Linux{}).Wait(); err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// become makes c.Root the root of everything and executes c in this process.
func become(c Command) error {
	if err := unix.Chdir(c.Root); err != nil {
		return fmt.Errorf("init %s: %w", c.Args[0], err)
	}
	if err := unix.Access(c.Args[0][1:], unix.X_OK); err != nil {
		return fmt.Errorf("init %s: %w", c.Args[0], err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", c.Root, err)
	}
	if err := errors.Join(unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("init %s: %w", c.Args[0], err)
	}
	return fmt.Errorf("init %s: %w", c.Args[0], unix.Exec(c.Args[0], c.Args, environ(c.Env)))
}

// initOf gives the program of the job that takes the guest over.
func initOf(sys System) (c Command, ok bool) {
	var job Job
	b, err := sys.ReadFile(JobFile)
	if err != nil || json.Unmarshal(b, &job) != nil {
		return c, false // whoever does the job says so
	}
	return job.Init, len(job.Init.Args) > 0
}

// isAgent says if this is the child of a PID 1 that becomes another program.
func isAgent() bool { return os.Getenv(agentEnv) != "" }

// HandOver lets PID 1 become the job's Init, and returns when it has.
func (Linux) HandOver() error {
	mounted, became := os.NewFile(mountedFD, "mounted"), os.NewFile(becameFD, "became")
	defer became.Close()
	_, err := mounted.Write([]byte{1})
	if err := errors.Join(err, mounted.Close()); err != nil {
		return err
	}
	why, err := io.ReadAll(became)
	if err == nil && len(why) > 0 {
		err = errors.New(string(why))
	}
	return err
}
