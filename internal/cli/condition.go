package cli

import "github.com/spf13/pflag"

// conditionVar adds the flag of a condition over the fields of events. It is --filter in verbs that keep or show events, and --if in
// rank, where it stands in a sentence; each takes the other name, too.
func conditionVar(fl *pflag.FlagSet, p *string, name, usage string) {
	fl.StringVar(p, name, "", usage)
	fl.SetNormalizeFunc(func(_ *pflag.FlagSet, said string) pflag.NormalizedName {
		if said == "filter" || said == "if" {
			said = name
		}
		return pflag.NormalizedName(said)
	})
}
