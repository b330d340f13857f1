package kmod

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MismatchError is a module that was built for another kernel: a field of its vermagic (include/linux/vermagic.h) differs,
// the version of a symbol, or the layout of a struct.
type MismatchError struct {
	Module string
	What   string // "vermagic"; empty for symbols and structs, whose names say enough
	Fields []Mismatch
}

// Mismatch is one field: the release in vermagic, or a flag such as SMP that only one side has; a symbol; a member.
type Mismatch struct {
	Field  string `json:"field"`
	Module string `json:"module"`
	Kernel string `json:"kernel"`
}

// Error names every field that differs.
func (e *MismatchError) Error() string {
	var parts []string
	for _, f := range e.Fields {
		parts = append(parts, fmt.Sprintf("%s is %q in the module and %q in the kernel", f.Field, f.Module, f.Kernel))
	}
	s := strings.Join(parts, "; ")
	if e.What != "" {
		s = e.What + ": " + s
	}
	return s
}

// vermagicFlags are the words behind the release, by what they tell. Of each group a kernel has one word or none.
var vermagicFlags = []struct {
	name  string
	words []string
}{
	{"SMP", []string{"SMP"}},
	{"preemption", []string{"preempt", "preempt_rt"}},
	{"module unloading", []string{"mod_unload"}},
	{"module versions", []string{"modversions"}},
	{"randstruct", nil}, // RANDSTRUCT_ and a hash
}

// Compare gives the fields in which two vermagic strings differ. Words that are not known are compared as they are.
func Compare(module, kernel string) (diff []Mismatch) {
	m, k := strings.Fields(module), strings.Fields(kernel)
	release := func(f []string) string {
		if len(f) == 0 {
			return ""
		}
		return f[0]
	}
	if release(m) != release(k) {
		diff = append(diff, Mismatch{"release", release(m), release(k)})
	}
	m, k = m[min(1, len(m)):], k[min(1, len(k)):]
	seen := map[string]bool{}
	pick := func(f []string, is func(string) bool) string {
		i := slices.IndexFunc(f, is)
		if i < 0 {
			return ""
		}
		seen[f[i]] = true
		return f[i]
	}
	for _, flag := range vermagicFlags {
		is := func(w string) bool { return slices.Contains(flag.words, w) }
		if flag.words == nil {
			is = func(w string) bool { return strings.HasPrefix(w, "RANDSTRUCT_") }
		}
		if a, b := pick(m, is), pick(k, is); a != b {
			diff = append(diff, Mismatch{flag.name, a, b})
		}
	}
	for _, w := range append(slices.Clone(m), k...) {
		if seen[w] {
			continue
		}
		seen[w] = true
		has := func(f []string) string { return pick(f, func(x string) bool { return x == w }) }
		if a, b := has(m), has(k); a != b {
			diff = append(diff, Mismatch{w, a, b})
		}
	}
	return diff
}

// Vermagic is what this kernel's own modules say. A folder without modules has none.
func (d *Dir) Vermagic() (string, error) {
	for name := range d.paths {
		m, err := d.Load(name)
		return m.Info.Vermagic, err
	}
	return "", errors.New("the kernel has no modules to compare with")
}

// Fits reports a module that the kernel of this folder would refuse, as a *[MismatchError].
func (d *Dir) Fits(i Info) error {
	kernel, err := d.Vermagic()
	if err != nil {
		return err
	}
	if diff := Compare(i.Vermagic, kernel); len(diff) > 0 {
		return &MismatchError{Module: i.Name, What: "vermagic", Fields: diff}
	}
	return nil
}
