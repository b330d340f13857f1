package cli

import (
	"strings"
	"testing"
)

// TestConditionNames: what a condition over events is called in one verb is understood in the others.
func TestConditionNames(t *testing.T) {
	n := 0
	for _, c := range verbs() {
		shown := map[string]string{"fathom rank": "if", "fathom record": "filter", "fathom record enable": "filter", "fathom view": "filter"}[c.CommandPath()]
		if shown == "" {
			continue
		}
		n++
		for i, args := range [][]string{{"--if", "len > 1"}, {"--filter", "len > 2"}, {"--if=len > 3"}} {
			if err := c.ParseFlags(args); err != nil {
				t.Errorf("%s %v: %v", c.CommandPath(), args, err)
				continue
			}
			f := c.Flags().Lookup(shown)
			if want := "len > " + string(rune('1'+i)); f.Name != shown || f.Value.String() != want || !c.Flags().Changed("if") || !c.Flags().Changed("filter") {
				t.Errorf("%s %v: --%s is %q, want %q", c.CommandPath(), args, f.Name, f.Value, want)
			}
		}
		if help := helpOf(t, c); strings.Contains(help, " --if ") == strings.Contains(help, " --filter ") {
			t.Errorf("%s --help shows both names, or none", c.CommandPath())
		}
	}
	if n != 4 {
		t.Errorf("%d verbs have such a condition", n)
	}
}
