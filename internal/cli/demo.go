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
		Long: `Make two network namespaces, send datagrams and a stream between them, and rank the code paths of this kernel that delivered
them. Takes root and a second; nothing is left behind.

Examples:
  fathom demo
  fathom demo 2>/dev/null
  sudo fathom demo | less`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return demo.Run(c.Context(), os.Stdout, os.Stderr)
		},
	}
}
