package cli

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"fathom":   func() { os.Exit(Main(os.Args)) },
		"bpftrace": func() { os.Exit(Main(append([]string{"bpftrace"}, os.Args[1:]...))) },
	})
}

// TestScripts runs the command line as a person would, without root.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
