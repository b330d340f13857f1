package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func doctorCommand() *cobra.Command {
	return &cobra.Command{Use: "doctor", RunE: func(c *cobra.Command, _ []string) error { return doctorInfo(c) }}
}

func doctorInfo(c *cobra.Command) error {
	_, err := fmt.Fprintln(c.OutOrStdout(), "doctor")
	return err
}
