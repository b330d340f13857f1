package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/demo"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Send packets between two namespaces and rank the kernel's code paths that delivered them",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return demo.Run(c.Context(), os.Stdout, os.Stderr)
		},
	}
}
