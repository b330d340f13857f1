package core

import (
	"fmt"
	"slices"
	"strings"
)

// options are the flags of a command as crash's users write them: letters behind a dash, alone or together, before, between
// or behind the operands.
type options struct {
	on   map[byte]bool
	val  map[byte]string
	rest []string
}

// parse reads flags: the letters of plain stand alone, those of valued take the next argument. Others are refused by name.
func parse(args []string, plain, valued string) (options, error) {
	o := options{on: map[byte]bool{}, val: map[byte]string{}}
	for i := 0; i < len(args); i++ {
		a := args[i]
		if len(a) < 2 || a[0] != '-' {
			o.rest = append(o.rest, a)
			continue
		}
		for j := 1; j < len(a); j++ {
			c := a[j]
			switch {
			case strings.IndexByte(plain, c) >= 0:
				o.on[c] = true
			case strings.IndexByte(valued, c) >= 0 && j == len(a)-1 && i+1 < len(args):
				i++
				o.on[c], o.val[c] = true, args[i]
			case strings.IndexByte(valued, c) >= 0:
				return o, &Usage{fmt.Sprintf("-%c needs a value", c)}
			default:
				return o, &Usage{fmt.Sprintf("no flag -%c; fathom core FILE help lists what there is", c)}
			}
		}
	}
	return o, nil
}

// Flags reads the flags of a command as crash's users write them: the letters of plain stand alone, those of valued take the next
// argument. It gives the values by letter, which are "" for those of plain, and the operands. Others are a *Usage.
func Flags(args []string, plain, valued string) (flags map[byte]string, operands []string, err error) {
	o, err := parse(args, plain, valued)
	flags = map[byte]string{}
	for f := range o.on {
		flags[f] = o.val[f]
	}
	return flags, o.rest, err
}

// none refuses all arguments.
func none(args []string) error {
	o, err := parse(args, "", "")
	if err == nil && len(o.rest) > 0 {
		err = &Usage{}
	}
	return err
}

// widths takes -8, -16, -32 and -64 out of arguments: how many bits a unit has.
func widths(args []string) (bits int, rest []string) {
	bits = 64
	for _, a := range args {
		if i := slices.Index([]string{"-8", "-16", "-32", "-64"}, a); i >= 0 {
			bits = 8 << i
			continue
		}
		rest = append(rest, a)
	}
	return bits, rest
}
