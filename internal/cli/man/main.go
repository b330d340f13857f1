// Command man writes a manual page for every verb, from the tree of commands that --help prints.
//
//	go run ./internal/cli/man -date 2026-11-22 -version v0.1.0 DIR
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fathom-trace/fathom/internal/cli"
)

func main() {
	date := flag.String("date", time.Now().UTC().Format(time.DateOnly), "of the pages")
	version := flag.String("version", "", "that the pages are about")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(flag.Arg(0), source{*date, *version}); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(dir string, src source) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range pages(cli.Root(), src) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
