package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// places are where a kind of package has its files; %s is their names.
var places = map[string]map[string]string{
	"deb": {"completion/bash": "/usr/share/bash-completion/completions/fathom", "completion/zsh": "/usr/share/zsh/vendor-completions/_fathom",
		"completion/fish": "/usr/share/fish/vendor_completions.d/fathom.fish", "doc/copyright": "/usr/share/doc/fathom/copyright",
		"doc/changelog.gz": "/usr/share/doc/fathom/changelog.gz"},
	"rpm": {"completion/bash": "/usr/share/bash-completion/completions/fathom", "completion/zsh": "/usr/share/zsh/site-functions/_fathom",
		"completion/fish": "/usr/share/fish/vendor_completions.d/fathom.fish", "doc/copyright": "/usr/share/licenses/fathom/copyright"},
}

// description is of both packages; the first line is the short one.
const description = `asks a Linux kernel what it did
fathom traces a running kernel with programs in the bpftrace language, says
where packets are lost and who changed an address, records events, reads
crash dumps, and goes around the kernel with AF_XDP. It is one static binary
that needs neither LLVM nor kernel headers.`

// pack makes a package with nfpm, which is pinned in tools/dist.
func (r *release) pack(kind, arch, binary string) error {
	config := filepath.Join(r.stage, kind+"-"+arch+".yaml")
	text, err := r.config(kind, arch, binary)
	if err != nil {
		return err
	}
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return err
	}
	target := filepath.Join(r.dir, fmt.Sprintf("fathom-linux-%s.%s", arch, kind))
	cmd := command("go", "tool", "-modfile=tools/dist/go.mod", "nfpm", "package", "--config", config, "--packager", kind, "--target", target)
	cmd.Env = append(cmd.Env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.time.Unix()))
	if out, err := cmd.Output(); err != nil {
		return fmt.Errorf("package %s: %w\n%s", target, err, out)
	}
	return nil
}

// config is nfpm's description of a package.
func (r *release) config(kind, arch, binary string) ([]byte, error) {
	var b bytes.Buffer
	stamp := r.time.Format("2006-01-02T15:04:05Z")
	fmt.Fprintf(&b, "name: fathom\narch: %s\nplatform: linux\nversion: %q\nversion_schema: none\nsection: admin\npriority: optional\n", arch, r.version)
	fmt.Fprintf(&b, "maintainer: The fathom authors <fathom-trace@users.noreply.github.com>\nhomepage: https://github.com/fathom-trace/fathom\nlicense: Apache-2.0\nmtime: %s\n", stamp)
	fmt.Fprintf(&b, "description: |\n  %s\n", strings.ReplaceAll(description, "\n", "\n  "))
	fmt.Fprintf(&b, "rpm:\n  summary: asks a Linux kernel what it did\n  buildhost: localhost\n  group: Development/Debuggers\ncontents:\n")
	put := func(src, dst, mode string) {
		fmt.Fprintf(&b, "- src: %s\n  dst: %s\n  file_info: {mode: %s, mtime: %s, owner: root, group: root}\n", src, dst, mode, stamp)
	}
	put(binary, "/usr/bin/fathom", "0755")
	for _, name := range []string{"completion/bash", "completion/zsh", "completion/fish", "doc/copyright", "doc/changelog.gz"} {
		if dst := places[kind][name]; dst != "" {
			put(filepath.Join(r.stage, name), dst, "0644")
		}
	}
	pages, err := filepath.Glob(filepath.Join(r.stage, "man1/*.gz"))
	if err != nil || len(pages) == 0 {
		return nil, fmt.Errorf("no manual pages: %w", err)
	}
	for _, p := range pages {
		put(p, "/usr/share/man/man1/"+filepath.Base(p), "0644")
	}
	return b.Bytes(), nil
}

// documents writes the licences of all that is in the binary, which they ask to be passed on, and the changelog that
// Debian's packages have.
func (r *release) documents() error {
	mods, err := modules(filepath.Join(r.dir, "fathom-linux-"+archs[0]))
	if err != nil {
		return err
	}
	own, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "fathom, https://github.com/fathom-trace/fathom, is under this licence:\n\n%s\nThe binary holds parts of others:\n", own)
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return err
	}
	all := append([]module{{Path: "the Go standard library", Dir: root}}, mods...)
	for _, m := range all {
		if m.Dir == "" {
			if m.Dir, err = output("go", "list", "-m", "-f", "{{.Dir}}", m.Path); err != nil {
				return err
			}
		}
		text, err := licence(m.Dir)
		if err != nil {
			return fmt.Errorf("licence of %s: %w", m.Path, err)
		}
		fmt.Fprintf(&b, "\n%s\n%s %s\n\n%s", strings.Repeat("-", 78), m.Path, m.Version, text)
	}
	if err := r.put("doc/copyright", b.Bytes()); err != nil {
		return err
	}
	log := fmt.Sprintf("fathom (%s) unstable; urgency=medium\n\n  * Built from the commit of this date.\n\n -- The fathom authors <fathom-trace@users.noreply.github.com>  %s\n",
		r.version, r.time.Format("Mon, 02 Jan 2006 15:04:05 +0000"))
	return r.put("doc/changelog.gz", compress([]byte(log)))
}

// licence reads the texts of a module that say under which conditions it may be passed on.
func licence(dir string) ([]byte, error) {
	var out []byte
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.Type().IsRegular() && (strings.HasPrefix(name, "LICENSE") || strings.HasPrefix(name, "LICENCE") || strings.HasPrefix(name, "COPYING") || strings.HasPrefix(name, "NOTICE")) {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			out = append(append(out, text...), '\n')
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no licence in %s", dir)
	}
	return out, nil
}
