package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/debuginfo/bzimage"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/doctor"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/kernel"
)

func explainConfigCommand() *cobra.Command {
	var of string
	var asJSON bool
	c := &cobra.Command{
		Use:   "config NEED|OPTION [--of KERNEL]",
		Short: "What a kernel's configuration has and lacks for a purpose",
		Long: `Say what a kernel's configuration has and lacks for a purpose, such as "readable back trace", kdump, "source lines" or
tracing, or for an option, also under a wrong name; and what to add to a .config. Exits with 1 if something is missing.

Examples:
  fathom explain config "readable back trace"
  fathom explain config kdump --of /boot/config-6.1.0-56-amd64
  fathom explain config CONFIG_RELOCATBLE --of ./vmlinux`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			conf, err := configOf(of)
			if err != nil {
				return err
			}
			meant, verdicts, err := conf.Answer(strings.Join(args, " "), machine())
			if err != nil {
				return usageError{"fathom explain config", err}
			}
			if asJSON {
				err = jsonl.Write(os.Stdout, map[string]any{"type": "config", "purpose": meant, "source": conf.Source, "needs": verdicts})
			} else {
				_, err = os.Stdout.WriteString(configText(meant, conf.Source, verdicts))
			}
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			for _, v := range verdicts {
				if !v.Met {
					return exitError{exitNegative}
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&of, "of", "live", "`KERNEL`: live, a config file, a vmlinux, a bzImage, or a dump")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "one JSON object")
	return c
}

// machine is this one, as uname -m says.
func machine() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

func configText(meant, from string, verdicts []doctor.Verdict) string {
	var b strings.Builder
	var add []string
	fmt.Fprintf(&b, "%s, by %s\n", meant, from)
	for _, v := range verdicts {
		mark := "has    "
		if !v.Met {
			mark = "LACKS  "
		}
		fmt.Fprintf(&b, "  %s %s: %s\n", mark, v.Need, strings.Join(v.Evidence, ", "))
		if v.Why != "" {
			fmt.Fprintf(&b, "          %s\n", v.Why)
		}
		if !v.Met && v.Menu != "" {
			fmt.Fprintf(&b, "          menuconfig: %s\n", v.Menu)
		}
		add = append(add, v.Fragment...)
	}
	if len(add) > 0 {
		fmt.Fprintf(&b, "add to .config:\n%s\n", strings.Join(add, "\n"))
	}
	return b.String()
}

// maxConfigFile bounds an image that is searched for its config.
const maxConfigFile = 1 << 30

// configOf reads a config: of the running kernel, a file, or what CONFIG_IKCONFIG put into a kernel or its dump.
func configOf(of string) (doctor.Config, error) {
	what := "read the config of " + of
	if of == "live" {
		c := doctor.Here().Config()
		if c.Values == nil {
			return c, &diag.Error{What: what, Err: errors.New(c.Source), Try: []string{"fathom explain config NEED --of /boot/config-…"}}
		}
		return c, nil
	}
	st, err := os.Stat(of)
	if err != nil {
		return doctor.Config{}, diag.NoInput(what, err)
	}
	if t, _, done, derr := openDump(of, nil); derr == nil {
		defer done()
		b, err := builtInConfig(t)
		if err != nil {
			return doctor.Config{}, diag.BadInput(what, err)
		}
		v, err := doctor.ParseConfig(b)
		return doctor.Config{Source: of, Values: v}, err
	}
	if st.Size() > maxConfigFile {
		return doctor.Config{}, diag.BadInput(what, fmt.Errorf("%d bytes are too many", st.Size()))
	}
	b, err := os.ReadFile(of)
	if err != nil {
		return doctor.Config{}, diag.NoInput(what, err)
	}
	if image, err := bzimage.Vmlinux(b); err == nil {
		b = image
	}
	if at := bytes.Index(b, []byte(ikconfigStart)); at >= 0 { // a kernel: kernel/configs.c
		b = b[at+len(ikconfigStart):]
	} else if bytes.HasPrefix(b, []byte("\x7fELF")) {
		return doctor.Config{}, diag.BadInput(what, errNoConfig)
	}
	v, err := doctor.ParseConfig(b)
	if err != nil {
		return doctor.Config{}, diag.BadInput(what, err)
	}
	return doctor.Config{Source: of, Values: v}, nil
}

// What stands before and behind the config in a kernel, which is gzip.
const (
	ikconfigStart = "IKCFG_ST"
	ikconfigEnd   = "IKCFG_ED"
)

var errNoConfig = errors.New("the kernel was built without CONFIG_IKCONFIG: give its config file")

// builtInConfig reads the config out of a dump's memory.
func builtInConfig(t kernel.Target) ([]byte, error) {
	start, end := t.Symbols().ByName("kernel_config_data"), t.Symbols().ByName("kernel_config_data_end")
	const most = 4 << 20
	if len(start) == 0 || len(end) == 0 || end[0]-start[0] > most {
		return nil, errNoConfig
	}
	b := make([]byte, end[0]-start[0])
	if err := t.ReadVirt(b, start[0]); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimPrefix(b, []byte(ikconfigStart)), []byte(ikconfigEnd)), nil
}
