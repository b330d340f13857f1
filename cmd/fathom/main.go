// Command fathom asks a Linux kernel what it did.
package main

import (
	"os"

	"github.com/fathom-trace/fathom/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
