package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// module is what the paths of all packages begin with.
const module = "github.com/fathom-trace/fathom/"

// measured begins what a test logs for the page.
const measured = "measured: "

// where is a test in a kernel.
type where struct{ pkg, name, kernel string }

// results are what tests said last.
type results struct {
	ended  map[where]string   // pass, fail, skip
	said   map[where][]string // what was measured
	boots  map[where]bool     // tests that boot kernels by themselves: on the machine at hand they do nothing else
	failed map[string]bool    // packages
	first  time.Time
	last   time.Time
}

func newResults() *results {
	return &results{ended: map[where]string{}, said: map[where][]string{}, boots: map[where]bool{}, failed: map[string]bool{}}
}

// event is a line of go test -json.
type event struct {
	Time                          time.Time
	Action, Package, Test, Output string
}

// read takes in the output of go test -json. Lines that are none, as those of make, are passed over.
func (r *results) read(in io.Reader) error {
	n := 0
	for b := bufio.NewReader(in); ; {
		line, err := b.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil && e.Package != "" {
			n++
			r.add(e)
		}
		switch {
		case errors.Is(err, io.EOF) && n == 0:
			return errors.New("no line is of go test -json")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (r *results) add(e event) {
	pkg, ends := strings.TrimPrefix(e.Package, module), slices.Contains([]string{"pass", "fail", "skip"}, e.Action)
	if e.Test == "" {
		if ends {
			r.failed[pkg] = e.Action == "fail"
		}
		return
	}
	at, booter := place(pkg, e.Test)
	switch {
	case e.Action == "run":
		delete(r.said, at)
	case e.Action == "output":
		if _, text, ok := strings.Cut(e.Output, measured); ok {
			r.said[at] = append(r.said[at], strings.TrimSpace(text))
		}
	case ends:
		r.ended[at] = e.Action
		if booter != "" {
			r.boots[where{pkg, booter, ktest.Host}] = true
		}
		if !e.Time.IsZero() && (r.first.IsZero() || e.Time.Before(r.first)) {
			r.first = e.Time
		}
		if e.Time.After(r.last) {
			r.last = e.Time
		}
	}
}

// place takes the kernel out of a test's name: TestGuest/debian-6.1/TestX is TestX there, and so is TestX/debian-6.1, which boots it
// by itself.
func place(pkg, name string) (at where, booter string) {
	parts := strings.Split(name, "/")
	i := slices.IndexFunc(parts, func(p string) bool {
		return slices.ContainsFunc(ktest.Kernels, func(k ktest.Kernel) bool { return k.Name == p })
	})
	switch {
	case i < 0:
		return where{pkg, name, ktest.Host}, ""
	case parts[0] == "TestGuest" && i == 1:
		return where{pkg, strings.Join(parts[2:], "/"), parts[1]}, ""
	}
	return where{pkg, strings.Join(slices.Concat(parts[:i], parts[i+1:]), "/"), parts[i]}, strings.Join(parts[:i], "/")
}

// in says how a test ended in some kernels: pass if a part of it passed and none failed, skip if all it has was skipped, "" if it does not
// run there.
func (r *results) in(t test, kernels []string) string {
	end := ""
	for at, how := range r.ended {
		kernel := at.kernel
		if t.Kernel != "" {
			if kernel != ktest.Host {
				continue
			}
			kernel = t.Kernel
		}
		name, inside := strings.CutPrefix(at.name, t.Name)
		if at.pkg != t.Pkg || !inside || name != "" && name[0] != '/' || !slices.Contains(kernels, kernel) {
			continue
		}
		if how != "fail" && (r.boots[at] || name == "" && r.hasParts(at)) {
			continue // it is what its parts are
		}
		end = worse(end, how)
	}
	return end
}

func (r *results) hasParts(whole where) bool {
	for at := range r.ended {
		if at.pkg == whole.pkg && at.kernel == whole.kernel && strings.HasPrefix(at.name, whole.name+"/") {
			return true
		}
	}
	return false
}

// worse is what two parts are together.
func worse(a, b string) string {
	for _, how := range []string{"fail", "pass", "skip"} {
		if a == how || b == how {
			return how
		}
	}
	return ""
}

// ran says if a test is in the results at all.
func (r *results) ran(t test) bool {
	for at := range r.ended {
		if at.pkg == t.Pkg && (at.name == t.Name || strings.HasPrefix(at.name, t.Name+"/")) {
			return true
		}
	}
	return false
}

// of is what stands in a column of a row.
func (r *results) of(tests []test, kernels []string) string {
	n := map[string]int{}
	var bad []string
	for _, t := range tests {
		how := r.in(t, kernels)
		if how == "" && !r.ran(t) {
			how = "not run"
		}
		n[how]++
		if how == "fail" {
			bad = append(bad, t.String())
		}
	}
	var more []string
	for _, how := range []string{"skip", "not run"} {
		if n[how] > 0 {
			more = append(more, fmt.Sprintf("%d %s", n[how], strings.Replace(how, "skip", "skipped", 1)))
		}
	}
	switch {
	case len(bad) > 0:
		return "**failed**: " + strings.Join(bad, ", ")
	case n["pass"] > 0 && len(more) > 0:
		return "pass (" + strings.Join(more, ", ") + ")"
	case n["pass"] > 0:
		return "pass"
	case n["not run"] > 0:
		return "not run"
	case n["skip"] > 0:
		return "skipped"
	}
	return "–"
}

// dates says when the results are from, and which packages failed as a whole.
func (r *results) dates() string {
	const day = "2006-01-02 15:04"
	text := fmt.Sprintf("Results of %s to %s (UTC).", r.first.UTC().Format(day), r.last.UTC().Format(day))
	var bad []string
	for _, pkg := range slices.Sorted(maps.Keys(r.failed)) {
		if r.failed[pkg] {
			bad = append(bad, pkg)
		}
	}
	if len(bad) > 0 {
		text += " **Packages that failed: " + strings.Join(bad, ", ") + ".**"
	}
	return text
}

// writeMeasured writes what the tests of these rows measured.
func (r *results) writeMeasured(w io.Writer, rows []row) {
	begun := false
	for _, row := range rows {
		for _, t := range row.Tests {
			for _, c := range columns {
				for _, k := range c.kernels {
					for _, text := range r.measuredBy(t, k) {
						if !begun {
							begun = true
							fmt.Fprint(w, "\n## Measured\n\n| row | test | where | |\n|---|---|---|---|\n")
						}
						fmt.Fprintf(w, "| %s | %s | %s | %s |\n", row.ID, t, k, strings.ReplaceAll(text, "|", `\|`))
					}
				}
			}
		}
	}
}

func (r *results) measuredBy(t test, kernel string) []string {
	var out []string
	for at, texts := range r.said {
		if at.pkg == t.Pkg && at.kernel == kernel && (at.name == t.Name || strings.HasPrefix(at.name, t.Name+"/")) {
			out = append(out, texts...)
		}
	}
	slices.Sort(out)
	return out
}
