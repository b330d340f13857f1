package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/traceevent/skeleton"
)

func newEventCommand() *cobra.Command {
	var dir, print string
	c := &cobra.Command{
		Use:   "new-event SYSTEM:NAME FIELD… [flags]",
		Short: "Write a new TRACE_EVENT: its header, and a module that fires it",
		Long: `Write the C of a new trace event into a folder: the header with its TRACE_EVENT, a module that defines the event and fires it,
Kbuild and Makefile. It builds as it is, for kernels before and after 6.10; fathom lab module load FOLDER GUEST does that, too.

A FIELD is declared as in C: 'int pid', 'u64 addr', 'struct sock *sk'; char comm[16] is text, u8 mac[6] so many numbers. Beside
C there are: string path, text of any length; u32 lengths[], as many numbers as the caller says; enum { IDLE, BUSY = 3 } state,
shown by name; flags { READ = 1, WRITE = 2 } mode. A conversion of printk's behind it says how it is shown: 'u64 addr %#x',
'u8 mac[6] %pM', 'void *caller %pS'.

Examples:
  fathom record new-event lab:pour 'int cup' 'unsigned int ml' 'string what'
  fathom record new-event drv:drv_rx 'char dev[16]' 'u32 len' 'enum { OK, CRC, OVERRUN } status' -o drv_rx
  fathom record new-event lab:map 'u64 addr' 'size_t len' 'flags { R = 1, W = 2, X = 4 } prot' --printk '%#x+%u for %s'
  make -C pour && insmod pour/pour.ko && fathom record -e lab:pour -- sh -c 'echo 5 > /sys/module/pour/parameters/fire'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, err := skeleton.Parse(args[0], args[1:], print)
			var wrong *skeleton.Error
			if errors.As(err, &wrong) {
				diag.Render(os.Stderr, []syntax.Diag{atText("new-event", wrong)}, style())
				return script.ErrDiagnosed
			} else if err != nil {
				return err
			}
			if dir == "" {
				dir = e.Name
			}
			return writeEvent(c, e, dir)
		},
	}
	c.Flags().StringVar(&print, "printk", "", "show by this `FMT`, in which each field has its conversion in turn (default NAME=VALUE …)")
	c.Flags().StringVarP(&dir, "output", "o", "", "write into the folder `DIR` (default NAME)")
	return c
}

// atText is what is wrong in one line of text.
func atText(name string, e *skeleton.Error) syntax.Diag {
	at := func(off int) syntax.Pos { return syntax.Pos{Line: 1, Col: off + 1, Off: off} }
	return syntax.Diag{Span: syntax.Span{Src: &syntax.Source{Name: name, Text: e.Text}, Start: at(e.Off), End: at(e.End)}, Msg: e.Msg, Hint: e.Hint}
}

// writeEvent writes the files of an event, if none of them is there, and lists them.
func writeEvent(c *cobra.Command, e *skeleton.Event, dir string) error {
	what := "write event " + e.System + ":" + e.Name
	files := e.Files()
	for _, f := range files {
		name := filepath.Join(dir, f.Name)
		if _, err := os.Lstat(name); err == nil {
			return &diag.Error{What: what, Because: name + " is there already", Try: []string{"fathom record new-event … -o DIR with another folder"}}
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, f := range files {
		name := filepath.Join(dir, f.Name)
		if err := os.WriteFile(name, []byte(f.Text), 0o666); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		fmt.Fprintln(c.OutOrStdout(), name)
	}
	return nil
}
