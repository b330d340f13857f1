// Package oracle finds the programs that tests compare with. One that is absent skips a test; under FATHOM_ORACLES=require,
// which CI sets, it fails it.
package oracle

import (
	"os"
	"os/exec"
	"testing"
)

// Env is the environment variable that, set to "require", makes absent oracles failures.
const Env = "FATHOM_ORACLES"

// Path returns where a program is, or calls [Missing].
func Path(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(t, err.Error())
	}
	return path
}

// Missing skips the test, or fails it where oracles are required.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(Env) == "require" {
		t.Fatalf("%s=require: %s", Env, why)
	}
	t.Skip(why)
}
