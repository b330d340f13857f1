// Command deps writes cmd/fathom/depaware.txt: the packages that are in the binary, and how large it is. It is committed,
// so that a new dependency or a jump in size is seen in review.
//
//	go run ./internal/gen/deps          writes it
//	go run ./internal/gen/deps -check   fails if it is out of date, or the binary too large
package main

import (
	"bytes"
	"debug/elf"
	"debug/gosym"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	command = "./cmd/fathom"
	list    = "cmd/fathom/depaware.txt"
	mb      = 1 << 20
	limit   = 23 * mb // of the stripped linux/amd64 binary, with every verb in it
)

// forbidden packages are a mistake in a binary.
var forbidden = []string{"html/template", "testing", "net/http", "runtime/cgo"}

// forbiddenFuncs switch off the linker's removal of dead code where they are reachable. cobra imports text/template, but
// nothing of it may be called: SetUsageTemplate and the like would.
var forbiddenFuncs = []string{"reflect.Value.MethodByName", "text/template.(*Template).Execute"}

func main() {
	check := flag.Bool("check", false, "compare with the committed file, do not write")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "deps:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	pkgs, err := packages()
	if err != nil {
		return err
	}
	bin, err := link()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	write(&out, pkgs, bin.size)
	if !check {
		if err := os.WriteFile(list, out.Bytes(), 0o644); err != nil {
			return err
		}
		return judge(pkgs, bin)
	}
	committed, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	if d := diff(string(committed), out.String()); d != "" {
		err = fmt.Errorf("%s is out of date; if this is meant, go run ./internal/gen/deps and commit it:\n%s", list, d)
	}
	return errors.Join(err, judge(pkgs, bin))
}

// judge refuses a binary that is too large or holds what must not be in it.
func judge(pkgs []pkg, bin binary) error {
	var errs []error
	if bin.size > limit {
		errs = append(errs, fmt.Errorf("the binary has %.2f MB, the limit is %d MB", float64(bin.size)/mb, limit/mb))
	}
	for _, f := range forbiddenFuncs {
		if bin.funcs[f] {
			errs = append(errs, fmt.Errorf("%s is reachable: the linker keeps every exported method", f))
		}
	}
	for _, p := range pkgs {
		if slices.Contains(forbidden, p.ImportPath) {
			errs = append(errs, fmt.Errorf("%s is in the binary (why: go mod why, go list -deps)", p.ImportPath))
		}
	}
	return errors.Join(errs...)
}

// pkg is what go list says about a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Module     *struct {
		Path, Version string
		Main          bool
	}
}

func packages() ([]pkg, error) {
	out, err := tool("go", "list", "-deps", "-json=ImportPath,Standard,Module", command)
	if err != nil {
		return nil, err
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
}

// binary is what the linker made.
type binary struct {
	size  int64
	funcs map[string]bool // by name
}

// link builds the binary as make does and reads its size, and its functions from the tables that tracebacks use.
func link() (b binary, err error) {
	dir, err := os.MkdirTemp("", "deps")
	if err != nil {
		return b, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "fathom")
	if _, err := tool("make", "-s", "build", "OUT="+name); err != nil {
		return b, err
	}
	st, err := os.Stat(name)
	if err != nil {
		return b, err
	}
	b.size = st.Size()
	b.funcs, err = functions(name)
	return b, err
}

func functions(name string) (map[string]bool, error) {
	f, err := elf.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tab, text := f.Section(".gopclntab"), f.Section(".text")
	if tab == nil || text == nil {
		return nil, fmt.Errorf("%s: no .gopclntab or .text", name)
	}
	data, err := tab.Data()
	if err != nil {
		return nil, err
	}
	t, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	if err != nil {
		return nil, err
	}
	funcs := map[string]bool{}
	for _, fn := range t.Funcs {
		funcs[fn.Name] = true
	}
	return funcs, nil
}

// tool runs a command that builds for the platform the list is of.
func tool(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}

// write lists packages: ours, other modules' with the version, the standard library's public ones. Its internal ones change
// with the toolchain and say nothing. The size is rounded up to a MB, so that only steps show.
func write(w io.Writer, pkgs []pkg, size int64) {
	var ours, others, std []string
	for _, p := range pkgs {
		switch {
		case p.Module != nil && p.Module.Main:
			ours = append(ours, strings.TrimPrefix(p.ImportPath, p.Module.Path+"/"))
		case p.Module != nil:
			others = append(others, p.ImportPath+" "+p.Module.Version)
		case !slices.ContainsFunc(strings.Split(p.ImportPath, "/"), func(e string) bool { return e == "internal" || e == "vendor" }):
			std = append(std, p.ImportPath)
		}
	}
	fmt.Fprintf(w, "# What is in fathom for linux/amd64. Made by go run ./internal/gen/deps; make lint checks it.\n")
	fmt.Fprintf(w, "size: under %d MB, stripped; limit %d MB\n", size/mb+1, limit/mb)
	for _, part := range []struct {
		title string
		names []string
	}{{"ours", ours}, {"other modules", others}, {"standard library", std}} {
		slices.Sort(part.names)
		fmt.Fprintf(w, "\n%s: %d\n", part.title, len(part.names))
		for _, n := range part.names {
			fmt.Fprintf(w, "\t%s\n", n)
		}
	}
}

// diff lists lines that only one text has.
func diff(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	var b strings.Builder
	for _, l := range h {
		if !slices.Contains(w, l) {
			fmt.Fprintf(&b, "\t-%s\n", l)
		}
	}
	for _, l := range w {
		if !slices.Contains(h, l) {
			fmt.Fprintf(&b, "\t+%s\n", l)
		}
	}
	return b.String()
}
