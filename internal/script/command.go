package script

import "os/exec"

// Command is a program that was started, but held before its first instruction until [Command.Resume]. It ends with this
// process.
type Command struct{ c *child }

// StartCommand starts argv held. Its standard streams are those of this process.
func StartCommand(argv []string) (*Command, error) {
	c, err := startChild(argv)
	if err != nil {
		return nil, err
	}
	return &Command{c}, nil
}

// PID is the command's number.
func (c *Command) PID() int { return c.c.pid() }

// Resume lets it run.
func (c *Command) Resume() error { return c.c.resume() }

// Exited says if it has ended.
func (c *Command) Exited() bool { return c.c.exited() }

// Code is the exit code of a command that has ended; of one that was killed, or runs, it is 0.
func (c *Command) Code() int {
	if e, ok := c.c.err.(*exec.ExitError); ok && e.ExitCode() > 0 {
		return e.ExitCode()
	}
	return 0
}

// Kill ends it if it still runs. It must be called, once.
func (c *Command) Kill() { c.c.kill() }
