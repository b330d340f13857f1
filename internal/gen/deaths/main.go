// Command deaths makes console texts of kernels that complain or die: it boots guests, has module fathom_deaths provoke each
// of its ways, in tasks, softirqs, interrupts and NMIs, and writes what the console had, with what was provoked, as
// oops/testdata/deaths-KERNEL.json.gz, and the module with its debug information beside it.
//
//	deaths [-only WAY,…] [-missing] [-survived] [-v] KERNEL… FOLDER
//
// The truth of a text is what was asked for: the row of a table here, and the line of the module's source that is marked
// with the way's name. No parser of ours has a part in it.
package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"github.com/fathom-trace/fathom/oops"
)

func main() {
	if pid1.IsInit() && os.Getpid() == 1 {
		fmt.Fprintln(os.Stderr, pid1.Main())
		os.Exit(1)
	}
	if len(os.Args) > 2 && os.Args[1] == inGuest {
		if err := provokeAll(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "deaths:", err)
			os.Exit(1)
		}
		return
	}
	var pick selection
	flag.StringVar(&pick.only, "only", "", "these ways alone, separated by commas")
	flag.BoolVar(&pick.missing, "missing", false, "only what the folder's files lack; the rest stays")
	flag.BoolVar(&pick.survived, "survived", false, "only what a kernel survives, which is one boot")
	flag.BoolVar(&pick.verbose, "v", false, "show consoles as they come")
	flag.Parse()
	args := flag.Args()
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: deaths [-only WAY,…] [-missing] [-survived] [-v] KERNEL… FOLDER")
		os.Exit(2)
	}
	dir := args[len(args)-1]
	for _, kernel := range args[:len(args)-1] {
		if err := generate(context.Background(), kernel, dir, pick); err != nil {
			fmt.Fprintf(os.Stderr, "deaths: %s: %v\n", kernel, err)
			os.Exit(1)
		}
	}
}

// Death is one text with its truth.
type Death struct {
	Way, Context string
	Asked        string // the context that was asked for: a kthread and a worker are tasks
	Kind         string // as package oops names it
	Function     string // that was to fail; "" where it is the kernel's own choice
	Module       string
	Line         int      // of the module's source; 0 if no line of it fails
	Addr         uint64   // that was accessed, if the way says so
	Access       string   // read, write, execute
	Kernel       string   // uname -r
	Text         string   // of the console
	Inlined      []string // functions of the source the line is in, innermost first, if more than Function
}

// generate boots a kernel as often as it must die.
func generate(ctx context.Context, kernel, dir string, pick selection) error {
	cache, err := guest.UserCache()
	if err != nil {
		return err
	}
	k, err := cache.Find(ctx, kernel, "")
	if err != nil {
		return err
	}
	ko, lines, err := build(ctx, cache, k)
	if err != nil {
		return err
	}
	if err := compress(ctx, ko, filepath.Join(dir, "deaths-"+kernel+".ko.xz")); err != nil {
		return err
	}
	file := filepath.Join(dir, "deaths-"+kernel+".json.gz")
	var out []Death
	if pick.missing {
		if out, err = read(file); err != nil {
			return err
		}
		for i, d := range out { // the truth is the table's of now
			if j := slices.IndexFunc(ways, func(w way) bool { return w.name == d.Way && w.context == d.Asked }); j >= 0 {
				out[i] = ways[j].death(k, lines, d.Text)
			}
		}
	}
	missing := 0
	for _, together := range boots(kernel, func(w way) bool { return pick.wants(w, out) }) {
		texts, all, err := boot(ctx, k, ko, together, pick.verbose)
		for i, w := range together {
			if texts[i] == "" {
				fmt.Fprintf(os.Stderr, "%s: no text: %v\n…%s\n", w, err, all[max(0, len(all)-3000):])
				missing++
				continue
			}
			out = append(out, w.death(k, lines, texts[i]))
		}
		slices.SortFunc(out, func(a, b Death) int {
			return cmp.Or(cmp.Compare(a.Way, b.Way), cmp.Compare(a.Context, b.Context), cmp.Compare(a.Text, b.Text))
		})
		if err := write(file, out); err != nil {
			return err
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d ways have no text", missing)
	}
	return nil
}

// selection is what is to be made.
type selection struct {
	only     string
	missing  bool
	verbose  bool
	survived bool
}

func (s selection) wants(w way, have []Death) bool {
	if s.survived && w.fatal || s.only != "" && !slices.Contains(strings.Split(s.only, ","), w.name) {
		return false
	}
	return !slices.ContainsFunc(have, func(d Death) bool { return d.Way == w.name && d.Asked == w.context })
}

// read reads the texts of a kernel, none if there is no file.
func read(name string) (out []Death, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(z); ; {
		var d Death
		if err := dec.Decode(&d); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
}

// boots are the ways that one guest goes, those that a kernel survives all together.
func boots(kernel string, wanted func(way) bool) (out [][]way) {
	var living []way
	for _, w := range ways {
		switch {
		case !wanted(w) || w.since != "" && kernel == "debian-6.1":
		case w.fatal:
			out = append(out, []way{w})
		default:
			living = append(living, w)
		}
	}
	// The kernel looks for tasks that hang as long as nothing died (kernel/hung_task.c).
	slices.SortStableFunc(living, func(a, b way) int {
		return cmp.Compare(b2i(a.kind != oops.HungTask)+b2i(a.shows == ""), b2i(b.kind != oops.HungTask)+b2i(b.shows == ""))
	})
	if len(living) > 0 {
		out = append([][]way{living}, out...)
	}
	return out
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// build builds the module and finds the marked lines of its source. The module goes beside the texts, as make made it, so
// that lines can be compared; "xz -9" makes it small.
func build(ctx context.Context, cache guest.Cache, k guest.Kernel) (ko string, lines map[string]int, err error) {
	headers, err := cache.BuildDir(ctx, k)
	if err != nil {
		return "", nil, err
	}
	dir := filepath.Join(os.TempDir(), "fathom-deaths-"+k.Release)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	if ko, err = buildIn(ctx, headers, dir); err != nil {
		return "", nil, err
	}
	lines = map[string]int{}
	for i, l := range strings.Split(source, "\n") {
		if _, mark, ok := strings.Cut(l, "/* @"); ok {
			name := strings.FieldsFunc(mark, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })[0]
			lines[name] = i + 1
		}
	}
	return ko, lines, nil
}

// write writes the texts of a kernel.
func write(name string, deaths []Death) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	e := json.NewEncoder(z)
	for _, d := range deaths {
		if err := e.Encode(d); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %d texts\n", name, len(deaths))
	return z.Close()
}

// compress makes a module small, beside the texts.
func compress(ctx context.Context, ko, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, "xz", "-9e", "-c", "--check=crc32", ko)
	cmd.Stdout, cmd.Stderr = f, os.Stderr
	return cmd.Run()
}
