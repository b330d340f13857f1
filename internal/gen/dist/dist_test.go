package main

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/oracle"
)

func TestSPDX(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &release{version: "0.0.0", time: time.Unix(1, 0).UTC()}
	doc, err := r.spdx(exe)
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(doc.Packages), 2+len(info.Deps); got != want {
		t.Errorf("%d packages, want %d", got, want)
	}
	ids := map[string]bool{}
	form := regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	for _, p := range doc.Packages {
		if ids[p.ID] || !form.MatchString(p.ID) {
			t.Errorf("identifier %q of %s", p.ID, p.Name)
		}
		ids[p.ID] = true
	}
	for _, rel := range doc.Relationships {
		if !ids[rel.Related] || rel.Element != doc.ID && !ids[rel.Element] {
			t.Errorf("relationship of unknown parts: %v", rel)
		}
	}
	if doc.Creation.Created != "1970-01-01T00:00:01Z" {
		t.Errorf("created %s", doc.Creation.Created)
	}
}

func TestLicence(t *testing.T) {
	dir := t.TempDir()
	if _, err := licence(dir); err == nil {
		t.Error("no licence is no error")
	}
	for name, text := range map[string]string{"LICENSE.md": "one\n", "NOTICE": "two\n", "main.go": "three\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := licence(dir); err != nil || string(got) != "one\n\ntwo\n\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// made is the folder that make dist made, or skips the test: make soak makes it.
func made(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("FATHOM_DIST")
	if dir == "" {
		t.Skip("FATHOM_DIST names the folder that make dist made; make soak makes one")
	}
	return dir
}

// say runs a program and gives all it says.
func say(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestDeb has dpkg install the package into a root of its own, and run what is there.
func TestDeb(t *testing.T) {
	dir := made(t)
	dpkg := oracle.Path(t, "dpkg")
	if os.Getuid() != 0 {
		t.Skip("dpkg --root takes root")
	}
	root := t.TempDir()
	for _, d := range []string{"var/lib/dpkg/updates", "var/lib/dpkg/info"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	say(t, dpkg, "--root="+root, "--force-not-root", "-i", filepath.Join(dir, "fathom-linux-"+runtime.GOARCH+".deb"))
	if out := say(t, filepath.Join(root, "usr/bin/fathom"), "version"); !strings.HasPrefix(out, "fathom ") {
		t.Errorf("fathom version: %s", out)
	}
	for _, f := range []string{"usr/share/man/man1/fathom-trace.1.gz", "usr/share/bash-completion/completions/fathom",
		"usr/share/zsh/vendor-completions/_fathom", "usr/share/fish/vendor_completions.d/fathom.fish", "usr/share/doc/fathom/copyright"} {
		if st, err := os.Stat(filepath.Join(root, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	say(t, dpkg, "--root="+root, "--force-not-root", "-P", "fathom")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/fathom")); !os.IsNotExist(err) {
		t.Errorf("dpkg -P leaves the binary: %v", err)
	}
	// What is meant: it is linked statically, and its licences stand in full, as the same file is in the RPM.
	if lintian, err := exec.LookPath("lintian"); err == nil {
		out := say(t, lintian, "--allow-root", "--fail-on", "none", "--suppress-tags", "statically-linked-binary,copyright-file-contains-full-apache-2-license,copyright-not-using-common-license-for-apache2",
			filepath.Join(dir, "fathom-linux-"+runtime.GOARCH+".deb"))
		for l := range strings.Lines(out) {
			if strings.HasPrefix(l, "E:") {
				t.Errorf("lintian: %s", l)
			}
		}
	}
}

func TestRPM(t *testing.T) {
	dir := made(t)
	rpm := oracle.Path(t, "rpm")
	for _, arch := range archs {
		file := filepath.Join(dir, "fathom-linux-"+arch+".rpm")
		list := say(t, rpm, "-qpl", "--nosignature", file)
		for _, f := range []string{"/usr/bin/fathom\n", "/usr/share/man/man1/fathom-trace.1.gz\n", "/usr/share/zsh/site-functions/_fathom\n"} {
			if !strings.Contains(list, f) {
				t.Errorf("%s has no %s: %s", file, f, list)
			}
		}
		say(t, rpm, "-K", "--nosignature", file)
	}
}

func TestChecksums(t *testing.T) {
	dir := made(t)
	cmd := exec.Command("sha256sum", "-c", "SHA256SUMS")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Count(out, []byte(": OK\n")) < 8 {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}

// TestReproducible compares with what a second make dist made.
func TestReproducible(t *testing.T) {
	dir, again := made(t), os.Getenv("FATHOM_DIST_AGAIN")
	if again == "" {
		t.Skip("FATHOM_DIST_AGAIN names what a second run made")
	}
	one, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(filepath.Join(again, "SHA256SUMS"))
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("two runs differ: %v\n%s\n%s", err, one, two)
	}
}

// TestARM runs the binary for arm64 where it needs no kernel of its own.
func TestARM(t *testing.T) {
	dir := made(t)
	qemu := oracle.Path(t, "qemu-aarch64-static")
	fathom := filepath.Join(dir, "fathom-linux-arm64")
	recording := t.TempDir() + "/again"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"version"}, "linux/arm64"},
		{[]string{"help", "trace"}, "examples:"},
		{[]string{"explain", "../../../oops/testdata/debian-6.1-div.txt"}, "divide"},
		{[]string{"explain", "errno", "EPERM"}, "not permitted"},
		{[]string{"trace", "-d", "asm", "-e", "BEGIN { @ = 1; exit(); }"}, "exit"},
		{[]string{"view", "../../../record/perfdata/testdata/packed.data", "--stats"}, "events"},
		{[]string{"view", "../../../record/perfdata/testdata/packed.data", "--to", "ctf", "-o", recording}, ""},
		{[]string{"view", recording, "--stats"}, "events"},
	} {
		if out := say(t, qemu, append([]string{fathom}, c.args...)...); !strings.Contains(strings.ToLower(out), c.want) {
			t.Errorf("fathom %s: no %q in\n%s", strings.Join(c.args, " "), c.want, out)
		}
	}
}
