package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/doctor"
	"github.com/fathom-trace/fathom/internal/term"
)

func doctorCommand() *cobra.Command {
	var json, clean bool
	var color term.When
	c := &cobra.Command{
		Use:   "doctor [kdump]",
		Short: "Say what works on this kernel, what does not, why, and how to mend it",
		Long: `Say what works on this kernel, what does not, why, and how to mend it. Everything is tried, nothing is left behind.
Works without root and says what root would add. "doctor kdump" asks if a panic would leave a dump.

Examples:
  fathom doctor
  fathom doctor -j
  fathom doctor kdump`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"kdump"},
		RunE: func(c *cobra.Command, args []string) error {
			if clean {
				return removeOrphans()
			}
			r := doctor.Run(c.Context(), doctor.Options{Kdump: len(args) == 1})
			if err := writeReport(os.Stdout, r, json, color); err != nil {
				return err
			}
			if !r.OK() {
				return exitError{exitNegative}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&clean, "clean", false, "remove what processes that died left behind, and nothing else")
	c.Flags().Var(&color, "color", "`WHEN`: auto, always or never")
	c.Flags().BoolVarP(&json, "json", "j", false, "one JSON object a line")
	return c
}

func writeReport(w io.Writer, r doctor.Report, json bool, color term.When) error {
	if json {
		return r.JSON(w)
	}
	return r.Styled(w, doctor.Style{ASCII: !term.UTF8(os.Getenv), Color: term.Color(color, w, os.Getenv)})
}

// removeOrphans removes what belongs to processes that are gone.
func removeOrphans() error {
	gone, err := leases().Clean(cleaners())
	for _, r := range gone {
		fmt.Printf("removed %s %s\n", r.Kind, r.Name)
	}
	return err
}

// doctorInfo is --info: bpftrace's name for it.
func doctorInfo(ctx context.Context, w io.Writer) error {
	r := doctor.Run(ctx, doctor.Options{})
	if err := writeReport(w, r, false, term.Auto); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
