// Command rows writes docs/rows.md and docs/reliability.md: each row of the requirements (rows.tsv), and each promise
// (promises.tsv), with the tests that show it and what they last said on each kernel.
//
//	go run ./internal/gen/rows FILE…            FILEs are the output of go test -json, the latest last; - is standard input
//	go run ./internal/gen/rows -promises FILE…  writes docs/reliability.md
//	go run ./internal/gen/rows -packages        lists the packages whose tests show a promise, for go test
//
// What is in no FILE has not been run, and the page says so.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/ktest"
)

//go:embed rows.tsv
var rowsText string

//go:embed promises.tsv
var promisesText string

func main() {
	promises := flag.Bool("promises", false, "write docs/reliability.md, of the promises")
	packages := flag.Bool("packages", false, "list the packages whose tests show a promise")
	flag.Parse()
	if *packages {
		if err := list(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "rows:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(*promises, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "rows:", err)
		os.Exit(1)
	}
}

func run(promises bool, files []string) error {
	if len(files) == 0 {
		return errors.New("name files with the output of go test -json")
	}
	rs := newResults()
	for _, name := range files {
		if err := readFile(rs, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	p := page{rowsText, "docs/rows.md", rowsHead}
	if promises {
		p = page{promisesText, "docs/reliability.md", promisesHead}
	}
	rows, err := parseRows(p.text)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	write(&b, p.head, rows, rs)
	return os.WriteFile(p.out, b.Bytes(), 0o644)
}

// suite is the package of the promises themselves, which make runs by itself.
const suite = "internal/promises"

// list prints the packages of promises but for the suite.
func list(w io.Writer) error {
	rows, err := parseRows(promisesText)
	if err != nil {
		return err
	}
	var pkgs []string
	for _, r := range rows {
		for _, t := range r.Tests {
			if t.Pkg != suite {
				pkgs = append(pkgs, "./"+t.Pkg)
			}
		}
	}
	slices.Sort(pkgs)
	_, err = fmt.Fprintln(w, strings.Join(slices.Compact(pkgs), " "))
	return err
}

func readFile(rs *results, name string) error {
	if name == "-" {
		return rs.read(os.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return rs.read(f)
}

// page is a table in the repository, and the document that is made of it.
type page struct{ text, out, head string }

// Classes of rows; of those that must work each has a test.
var classes = []string{"core", "supporting", "context", "claim", "question", "need", "promise"}

// row is a line of rows.tsv.
type row struct {
	ID, Class, Title string
	Tests            []test
	Lacks            string // what the tests do not show
}

// test names a test, or a part of one.
type test struct {
	Pkg, Name string
	Kernel    string // that it boots by itself; "" if it runs where it is started
}

func (t test) String() string {
	pkg := t.Pkg[strings.LastIndexByte(t.Pkg, '/')+1:]
	return pkg + "." + t.Name
}

// parseRows reads a table: lines of five columns with tabs between, # begins a remark.
func parseRows(text string) ([]row, error) {
	var rows []row
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 5 || !slices.Contains(classes, f[1]) {
			return nil, fmt.Errorf("line %d: id, class, title, tests, what lacks, with tabs between: %q", n, line)
		}
		r := row{ID: f[0], Class: f[1], Title: f[2], Lacks: f[4]}
		for _, w := range strings.Fields(f[3]) {
			w, kernel, _ := strings.Cut(w, "@")
			pkg, name, ok := strings.Cut(w, ":")
			if !ok || pkg == "" || name == "" {
				return nil, fmt.Errorf("line %d: %s: a test is PACKAGE:TEST", n, w)
			}
			r.Tests = append(r.Tests, test{pkg, name, kernel})
		}
		rows = append(rows, r)
	}
	return rows, nil
}

const rowsHead = `# The requirements, row by row

Made by ` + "`make rows`" + `. **core** must work, **supporting** makes a core row usable, **context** is told in the documents at most; a
claim or a question is one that somebody made or asked about a kernel, a need is for everybody. pass: all of these tests that the kernel can
run passed; (n skipped): some ask for what it does not have; skipped: all do; –: they do not run there; not run: not in the results that this
page was made of.
`

const promisesHead = `# What fathom promises, and what became of it

Made by ` + "`make promises`" + `. A sample of it runs with ` + "`make test`" + `: the same tests, with fewer repetitions. Words as in [rows.md](rows.md).
`

// columns are the kernels that the page has columns for, with their names in results.
var columns = []struct {
	title   string
	kernels []string
}{
	{"this machine", []string{ktest.Host}}, {"Debian 6.1", []string{"debian-6.1"}}, {"Debian 6.12", []string{"debian-6.12", "debian-6.12-cloud"}},
}

func write(w io.Writer, head string, rows []row, rs *results) {
	fmt.Fprintf(w, "%s\n%s\n\n", head, rs.dates())
	fmt.Fprint(w, "| row | class | what | shown by |")
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c.title)
	}
	fmt.Fprintf(w, " not shown |\n|---|---|---|---|%s---|\n", strings.Repeat("---|", len(columns)))
	for _, r := range rows {
		names := "**not shown**"
		if len(r.Tests) > 0 {
			var s []string
			for _, t := range r.Tests {
				s = append(s, t.String())
			}
			names = strings.Join(s, ", ")
		} else if r.Class == "context" {
			names = "–"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |", r.ID, r.Class, r.Title, names)
		for _, c := range columns {
			fmt.Fprintf(w, " %s |", rs.of(r.Tests, c.kernels))
		}
		fmt.Fprintf(w, " %s |\n", r.Lacks)
	}
	rs.writeMeasured(w, rows)
}
