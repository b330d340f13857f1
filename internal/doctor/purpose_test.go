package doctor

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAnswer asks a config in the words that people use, right and wrong.
func TestAnswer(t *testing.T) {
	c := Config{Source: "config", Values: map[string]string{
		"UNWINDER_ORC": "y", "KALLSYMS": "y", "KALLSYMS_ALL": "n", "RELOCATABLE": "y", "KEXEC": "n", "KEXEC_FILE": "y", "PSTORE": "y", "PSTORE_RAM": "m", "NETCONSOLE": "n",
	}}
	type answer struct {
		Meant    string
		Met      []bool
		Fragment []string
	}
	for what, want := range map[string]answer{
		"readable back trace":   {"readable back trace", []bool{true, false}, []string{"CONFIG_KALLSYMS_ALL=y"}},
		"Backtraces":            {"readable back trace", []bool{true, false}, []string{"CONFIG_KALLSYMS_ALL=y"}},
		"CONFIG_RELOCATBLE":     {"CONFIG_RELOCATABLE", []bool{true}, nil},
		"CONFIG_FRAME_POINTERS": {"CONFIG_FRAME_POINTER", []bool{false, true}, []string{"CONFIG_FRAME_POINTER=y"}},
		"pstore":                {"messages that survive", []bool{true, false}, []string{"CONFIG_NETCONSOLE=y"}},
		"lockdep":               {"lock order", []bool{false}, []string{"CONFIG_PROVE_LOCKING=y"}},
		"kexec_file":            {"CONFIG_KEXEC_FILE", []bool{true}, nil},
	} {
		meant, verdicts, err := c.Answer(what, "x86_64")
		got := answer{Meant: meant}
		for _, v := range verdicts {
			got.Met = append(got.Met, v.Met)
			got.Fragment = append(got.Fragment, v.Fragment...)
		}
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", what, err, d)
		}
	}
	if _, _, err := c.Answer("colour of the sky", "x86_64"); err == nil {
		t.Error("there is an answer to what nobody knows")
	}
	for _, machine := range []string{"x86_64", "aarch64"} {
		seen := map[string]bool{}
		for _, p := range Purposes(machine) {
			for _, n := range p.Names {
				if seen[n] {
					t.Errorf("%s is a name of two purposes", n)
				}
				seen[n] = true
			}
		}
	}
}
