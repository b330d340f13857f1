package cli

import (
	"errors"
	"time"

	"github.com/spf13/pflag"
)

// span is a flag that takes a length of time, which is not negative.
type span struct{ d *time.Duration }

func (s span) String() string {
	if s.d == nil || *s.d == 0 {
		return ""
	}
	return s.d.String()
}

// Type implements pflag.Value.
func (s span) Type() string { return "duration" }

// Set implements pflag.Value.
func (s span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	if d < 0 {
		return errors.New("a time is not negative")
	}
	*s.d = d
	return nil
}

// forVar adds --for, which means the same in every verb.
func forVar(fl *pflag.FlagSet, d *time.Duration, usage string) { fl.Var(span{d}, "for", usage) }
