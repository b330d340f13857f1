package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/guest/keep"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/lab/topology/spec"
)

// defaultLab is the lab that is meant if none is named.
const defaultLab = "lab"

func labCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Networks out of namespaces in one line, kernels in QEMU",
		Long: `Make networks out of namespaces and kernels in QEMU, to try things where nothing can be broken.

Examples:
  fathom lab up 'a:10.0.0.1/24 -- b:10.0.0.2/24'
  fathom lab exec b -- fathom lab listen udp 10.0.0.2:4096
  fathom lab boot --kernel debian-6.12 -- uname -r`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{"fathom lab", fmt.Errorf("no verb %q", args[0])}
			}
			return c.Help()
		},
	}
	c.AddCommand(labUpCommand(), labDownCommand(), labExecCommand(), labListCommand(), labSendCommand(), labListenCommand(), labBootCommand(), labMatrixCommand(), labConfigCommand(),
		labCpCommand(), labSysRqCommand(), labDumpCommand(), labConsoleCommand(), labModuleCommand(), labTryCommand(), labGDBCommand(), labKeeperCommand(), labActCommand())
	return c
}

// labs are those of the person who typed the command: with sudo, not root's.
func labs() topology.Labs { return topology.Labs{Dir: leases(), Person: person()} }

// guests are theirs, too.
func guests() keep.Guests { return keep.Guests{Dir: leases(), Person: person()} }

func person() string {
	person := strconv.Itoa(os.Getuid())
	if s := os.Getenv("SUDO_UID"); os.Geteuid() == 0 && s != "" {
		if _, err := strconv.ParseUint(s, 10, 32); err == nil {
			person = s
		}
	}
	return person
}

func labUpCommand() *cobra.Command {
	var name, file string
	var while int
	c := &cobra.Command{
		Use:   "up [flags] TOPOLOGY | up -f FILE",
		Short: "Make a network",
		Long: `Make a network out of namespaces. It stays until "fathom lab down". docs/lab.md has the language.

Examples:
  fathom lab up 'a:10.0.0.1/24 -- b:10.0.0.2/24'
  fathom lab up 'a:10.0.1.1/24 -- r:10.0.1.2/24; r:10.0.2.2/24 -- b:10.0.2.1/24; router r; host a { route default via 10.0.1.2 }; host b { route default via 10.0.2.2 }'
  fathom lab up --name slow 'a:10.0.0.1/24{netem="delay 20ms loss 1%"} -- b:10.0.0.2/24'`,
		RunE: func(c *cobra.Command, args []string) error {
			text := strings.Join(args, "\n")
			switch {
			case (file == "") == (len(args) == 0):
				return usageError{c.CommandPath(), errors.New("give a topology, or a file with -f")}
			case file != "":
				b, err := readInput(file)
				if err != nil {
					return diag.NoInput("read topology "+file, err)
				}
				text = string(b)
			}
			sweep()
			if _, err := guests().Find(name); err == nil {
				return &diag.Error{What: "make lab " + name, Because: "a guest of that name is up", Try: []string{"fathom lab up --name OTHER …"}}
			}
			return labUp(name, text, while)
		},
	}
	c.Flags().StringVar(&name, "name", defaultLab, "`NAME` of the lab")
	c.Flags().IntVar(&while, "while", 0, "only as long as process `PID` runs: the next fathom that starts removes it")
	c.Flags().StringVarP(&file, "file", "f", "", "read the topology from `FILE`; - is standard input")
	return c
}

func readInput(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}

func labUp(name, text string, while int) error {
	err := labs().UpWhile(name, text, while)
	var bad *spec.Error
	switch {
	case errors.As(err, &bad):
		e := &diag.Error{What: "read topology", Because: excerptOf(text, bad), Code: diag.ExitBadInput, Err: err}
		if bad.Hint != "" {
			e.Try = []string{bad.Hint}
		}
		return e
	case errors.Is(err, lease.ErrTaken):
		return &diag.Error{What: "make lab " + name, Because: "a lab of that name is up", Err: err, Try: []string{
			"fathom lab down " + name, "fathom lab list", "fathom lab up --name OTHER …",
		}}
	case errors.Is(err, fs.ErrPermission):
		return &diag.Error{What: "make lab " + name, Code: diag.ExitPermission, Err: err, Try: []string{"sudo fathom lab up …"}}
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENODEV):
		return &diag.Error{What: "make lab " + name, Code: diag.ExitUnsupported, Err: err, Try: []string{"fathom doctor", "fathom lab boot --kernel debian-6.12 -- fathom lab up …"}}
	case err != nil:
		return &diag.Error{What: "make lab " + name, Err: err}
	}
	return nil
}

// excerptOf is the error with the line it is in.
func excerptOf(text string, e *spec.Error) string {
	lines := strings.Split(text, "\n")
	if e.Pos.Line < 1 || e.Pos.Line > len(lines) {
		return e.Error()
	}
	line := lines[e.Pos.Line-1]
	if n := e.Pos.Col - 1; n <= len(line) {
		line = line[n:]
	}
	if line == "" {
		return e.Error() + ", at the end of the line"
	}
	return fmt.Sprintf("%v, at: %.40s", e, line)
}

// noLab says which labs there are.
func noLab(what, name string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e := &diag.Error{What: strings.TrimPrefix(what, "fathom "), Because: fmt.Sprintf("there is no lab %s", name), Code: diag.ExitNoInput, Err: err}
	all, _ := labs().List()
	for _, l := range all {
		e.Try = append(e.Try, what+" "+l.Name)
	}
	if len(all) == 0 {
		e.Try = []string{"fathom lab up 'a:10.0.0.1/24 -- b:10.0.0.2/24'"}
	}
	return e
}

func labDownCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "down [NAME…]",
		Short: "Remove networks, switch guests off",
		Long: `Remove networks, all that is in them included, and switch guests off as if their power were cut.

Examples:
  fathom lab down
  fathom lab down slow
  fathom lab down --all`,
		RunE: func(c *cobra.Command, args []string) error {
			sweep()
			l := labs()
			if all {
				mine, err := l.List()
				if err != nil {
					return err
				}
				for _, lab := range mine {
					args = append(args, lab.Name)
				}
				kept, err := guests().List()
				if err != nil {
					return err
				}
				for _, g := range kept {
					args = append(args, g.Name)
				}
			} else if len(args) == 0 {
				args = []string{defaultLab}
			}
			for _, name := range args {
				lab, err := l.Find(name)
				if errors.Is(err, fs.ErrNotExist) {
					if g, gerr := guests().Find(name); gerr == nil {
						if err := (keep.Client{Info: g}).Down(c.Context()); err != nil {
							return err
						}
						continue
					}
				}
				if err != nil {
					return noLab("fathom lab down", name, err)
				}
				inside := processesIn(lab)
				if err := l.Down(lab); err != nil {
					return err
				}
				if len(inside) > 0 {
					fmt.Fprintf(os.Stderr, "fathom: their hosts stay for these processes until they end: %v\n", inside)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all of yours")
	return c
}

// processesIn lists who is still in a lab's hosts.
func processesIn(lab topology.Lab) (pids []int) {
	found, err := netns.Scan("/proc")
	if err != nil {
		return nil
	}
	for _, f := range found {
		for _, h := range lab.Hosts {
			if slices.Contains(f.Names, netns.RunDir+"/"+h.NS) {
				pids = append(pids, f.PIDs...)
			}
		}
	}
	return pids
}

func labExecCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "exec [flags] HOST -- COMMAND [ARG…]",
		Short: "Run a command in a host of a lab, or in a guest",
		Long: `Run a command in a host's network. Only the network changes: mounts stay, so that tracefs and bpffs are there, and a pin
made by one command is found by the next. HOST may also be a guest that lab boot keeps, a process number, a name in
/run/netns, or a path.

Examples:
  fathom lab exec a -- ping -c1 10.0.0.2
  fathom lab exec --lab slow b -- fathom lab listen tcp 10.0.0.2:80
  fathom lab exec g -- dmesg`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			command := args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			if len(command) == 0 {
				return usageError{c.CommandPath(), errors.New("give a command")}
			}
			if g, err := guests().Find(args[0]); err == nil && !c.Flags().Changed("lab") && !hostOf(name, args[0]) {
				return execInGuest(c.Context(), g, command)
			}
			ns, err := openHost(name, args[0])
			if err != nil {
				return err
			}
			return execIn(ns, command)
		},
	}
	c.Flags().StringVar(&name, "lab", defaultLab, "`NAME` of the lab")
	c.Flags().SetInterspersed(false)
	return c
}

// hostOf says that a lab has a host of that name.
func hostOf(labName, host string) bool {
	lab, err := labs().Find(labName)
	_, ok := lab.Host(host)
	return err == nil && ok
}

// openHost opens a lab's host, or else a namespace by process, name or path.
func openHost(labName, host string) (netns.NS, error) {
	lab, err := labs().Find(labName)
	if err == nil {
		if h, ok := lab.Host(host); ok {
			return netns.Open(h.NS)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return netns.NS{}, err
	}
	ns, oerr := netns.Open(host)
	if oerr == nil || !errors.Is(oerr, fs.ErrNotExist) {
		return ns, oerr
	}
	e := &diag.Error{What: "find host " + host, Because: fmt.Sprintf("no lab %q, no guest, no process and no namespace of that name", labName), Code: diag.ExitNoInput, Err: oerr, Try: []string{"fathom lab list"}}
	if err == nil {
		var names []string
		for _, h := range lab.Hosts {
			names = append(names, h.Name)
		}
		e.Because = fmt.Sprintf("lab %s has %s", labName, strings.Join(names, ", "))
	}
	return ns, e
}

// execIn becomes the command, in the namespace.
func execIn(ns netns.NS, args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return &diag.Error{What: "run " + args[0], Code: diag.ExitNoInput, Err: err}
	}
	return ns.Exec(path, args, os.Environ())
}

// labEntry is a line of lab list.
type labEntry struct {
	Type  string    `json:"type"` // "lab", "guest" or "netns"
	Name  string    `json:"name,omitempty"`
	Host  string    `json:"host,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Addrs []string  `json:"addresses,omitempty"`
	Inode uint64    `json:"netns_inode,omitempty"`
	PIDs  []int     `json:"pids,omitempty"`
	Held  []int     `json:"held_by,omitempty"`
	Comm  string    `json:"comm,omitempty"`
	Own   bool      `json:"own,omitempty"`

	Kernel string `json:"kernel,omitempty"` // of a guest: its release
	State  string `json:"state,omitempty"`  // QEMU's word, or "booting"
}

func labListCommand() *cobra.Command {
	var asJSON, exercises bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List networks, guests, and the namespaces of others",
		Long: `List your networks, your guests, and all network namespaces there are: named, of containers, or only held open.

Examples:
  fathom lab list
  fathom lab list -j
  fathom lab exec "$(pidof -s nginx)" -- fathom lab list`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if exercises {
				return listExercises(os.Stdout)
			}
			entries, err := labEntries()
			if err != nil {
				return err
			}
			kept, err := guestEntries(c.Context())
			if err != nil {
				return err
			}
			entries = append(entries, kept...)
			if asJSON {
				enc := jsonl.NewEncoder(os.Stdout)
				for _, e := range entries {
					if err := enc.Encode(e); err != nil {
						return err
					}
				}
				return nil
			}
			return printLabs(os.Stdout, entries)
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "one JSON object a line")
	c.Flags().BoolVar(&exercises, "exercises", false, "the problems that lab try has")
	return c
}

func labEntries() ([]labEntry, error) {
	mine, err := labs().List()
	if err != nil {
		return nil, err
	}
	found, err := netns.Scan("/proc")
	if err != nil {
		return nil, err
	}
	var out []labEntry
	ours := map[uint64]bool{}
	for _, l := range mine {
		for _, h := range l.Hosts {
			e := labEntry{Type: "lab", Name: l.Name, Host: h.Name, Since: l.Since, Addrs: h.Addrs}
			for _, f := range found {
				if slices.Contains(f.Names, netns.RunDir+"/"+h.NS) {
					e.Inode, e.PIDs, e.Held, e.Comm = f.Inode, f.PIDs, f.Held, f.Comm
					ours[f.Inode] = true
				}
			}
			out = append(out, e)
		}
	}
	for _, f := range found {
		if !ours[f.Inode] {
			name := ""
			if len(f.Names) > 0 {
				name = strings.TrimPrefix(f.Names[0], netns.RunDir+"/")
			}
			out = append(out, labEntry{Type: "netns", Name: name, Inode: f.Inode, PIDs: f.PIDs, Held: f.Held, Comm: f.Comm, Own: f.Own})
		}
	}
	return out, nil
}

func printLabs(w io.Writer, entries []labEntry) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "LAB\tHOST\tNAMESPACE\tADDRESSES\tPROCESSES")
	kept := 0
	for _, e := range entries {
		if e.Type == "guest" {
			kept++
			continue
		}
		lab, host := e.Name, e.Host
		if e.Type == "netns" {
			lab, host = "-", e.Name
			switch {
			case e.Own:
				host = "(here)"
			case host == "":
				host = "(no name)"
			}
		}
		who := strconv.Itoa(len(e.PIDs))
		switch {
		case len(e.PIDs) > 0:
			who = fmt.Sprintf("%d: %d %s", len(e.PIDs), e.PIDs[0], e.Comm)
		case len(e.Held) > 0:
			who = fmt.Sprintf("0, held open by %d", e.Held[0])
		}
		fmt.Fprintf(tw, "%s\t%s\tnet:[%d]\t%s\t%s\n", lab, host, e.Inode, strings.Join(e.Addrs, " "), who)
	}
	if kept > 0 {
		fmt.Fprintln(tw, "\nGUEST\tSTATE\tKERNEL\tSINCE\tQEMU")
	}
	for _, e := range entries {
		if e.Type == "guest" {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%v\n", e.Name, e.State, e.Kernel, e.Since.Local().Format(time.DateTime), e.PIDs)
		}
	}
	return tw.Flush()
}
