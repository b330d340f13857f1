// Command dist makes what is handed out from the binaries that stand in a folder as fathom-linux-ARCH: manual pages, shell
// completions, a Debian package and an RPM for each, the list of what is in them (SPDX), and checksums. Equal binaries and
// an equal commit give equal bytes: every time in them is SOURCE_DATE_EPOCH, or the commit's.
//
//	go run ./internal/gen/dist dist
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

var archs = []string{"amd64", "arm64"}

func main() {
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: dist FOLDER")
		os.Exit(2)
	}
	if err := run(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// release is what everything in the folder says of itself.
type release struct {
	dir     string
	stage   string // folder of what the packages hold
	version string // as Debian and RPM order them: 0.0.0~git20261122.abcdef0
	time    time.Time
}

func run(dir string) error {
	r, err := newRelease(dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(r.stage)
	for _, step := range []func() error{r.manual, r.completions, r.documents} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, arch := range archs {
		binary := filepath.Join(dir, "fathom-linux-"+arch)
		if err := r.sbom(binary); err != nil {
			return err
		}
		for _, kind := range []string{"deb", "rpm"} {
			if err := r.pack(kind, arch, binary); err != nil {
				return err
			}
		}
	}
	return checksums(dir)
}

// newRelease asks git for the commit; a tag vX.Y.Z is the version, any other commit one before 0.1.
func newRelease(dir string) (*release, error) {
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		var err error
		if seconds, err = output("git", "log", "-1", "--format=%ct"); err != nil {
			return nil, err
		}
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("time of the commit: %w", err)
	}
	r := &release{dir: dir, stage: filepath.Join(dir, "stage"), time: time.Unix(n, 0).UTC()}
	if tag, err := output("git", "tag", "--points-at", "HEAD", "--list", "v[0-9]*"); err == nil && tag != "" {
		tag, _, _ = strings.Cut(tag, "\n")
		r.version = strings.TrimPrefix(tag, "v")
	} else {
		commit, err := output("git", "rev-parse", "--short=12", "HEAD")
		if err != nil {
			return nil, err
		}
		r.version = fmt.Sprintf("0.0.0~git%s.%s", r.time.Format("20060102"), commit)
	}
	if err := os.RemoveAll(r.stage); err != nil {
		return nil, err
	}
	return r, os.MkdirAll(r.stage, 0o755)
}

// output runs a program and gives what it prints.
func output(name string, args ...string) (string, error) {
	out, err := command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// command is a program that runs here, whatever is being built for.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOARCH=") }), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// put writes a file below the stage.
func (r *release) put(name string, data []byte) error {
	name = filepath.Join(r.stage, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// manual writes the manual pages, compressed.
func (r *release) manual() error {
	plain := filepath.Join(r.stage, "man")
	if err := command("go", "run", "./internal/cli/man", "-date", r.time.Format(time.DateOnly), "-version", r.version, plain).Run(); err != nil {
		return fmt.Errorf("manual pages: %w", err)
	}
	files, err := filepath.Glob(plain + "/*.1")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := r.put("man1/"+filepath.Base(f)+".gz", compress(text)); err != nil {
			return err
		}
	}
	return nil
}

// compress is gzip -9n.
func compress(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	w.Write(data) // into memory: no errors
	w.Close()
	return b.Bytes()
}

// completions has the binary for this machine print them.
func (r *release) completions() error {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		cmd := command(filepath.Join(r.dir, "fathom-linux-"+runtime.GOARCH), "completion", shell)
		text, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("completions for %s: %w", shell, err)
		}
		if err := r.put("completion/"+shell, text); err != nil {
			return err
		}
	}
	return nil
}

// checksums writes SHA256SUMS over all files of the folder.
func checksums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == "SHA256SUMS" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), out.Bytes(), 0o644)
}
