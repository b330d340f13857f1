package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// headerPackage are the packages that linux-headers-RELEASE needs to be of use, beside the compiler.
var headerPackage = regexp.MustCompile(`linux-(?:headers|kbuild)-[a-z0-9.+-]+`)

// BuildDir is where modules for a kernel are built ("make -C"): its build tree, what the machine has installed for it, or
// Debian's headers, downloaded once into the cache.
func (c Cache) BuildDir(ctx context.Context, k Kernel) (string, error) {
	for _, dir := range []string{k.ModuleDir, filepath.Join("/lib/modules", k.Release, "build"), c.headers(k.Release)} {
		if dir != "" && exists(filepath.Join(dir, "Makefile")) && exists(filepath.Join(dir, "Module.symvers")) {
			return dir, nil
		}
	}
	if k.Release == "" || strings.ContainsAny(k.Release, "/ ") {
		return "", fmt.Errorf("get headers: %q is no release", k.Release)
	}
	unlock, err := c.lock()
	if err != nil {
		return "", fmt.Errorf("get headers of %s: %w", k.Release, err)
	}
	defer unlock()
	dir := c.headers(k.Release)
	if exists(dir) { // another process was faster
		return dir, nil
	}
	if err := c.unpackHeaders(ctx, k.Release); err != nil {
		return "", err
	}
	return dir, nil
}

func (c Cache) headerRoot(release string) string { return filepath.Join(c.Dir, "headers", release) }

func (c Cache) headers(release string) string {
	return filepath.Join(c.headerRoot(release), "usr", "src", "linux-headers-"+release)
}

// unpackHeaders downloads the headers and what they name beside their final place, then renames it. Their Makefile names
// the folder of the parts that all flavours share; that is the only absolute path in them.
func (c Cache) unpackHeaders(ctx context.Context, release string) error {
	what := "get headers of " + release
	tmp, err := os.MkdirTemp(c.kernels(), "tmp-")
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	want := []string{"linux-headers-" + release}
	for i := 0; i < len(want); i++ {
		deb, err := download(ctx, tmp, want[i])
		if err != nil {
			return &SetupError{What: what, Because: err.Error(), Try: []string{"apt-get update", "build against a tree: --kernel TREE"}, Err: err}
		}
		deps, err := run(ctx, tmp, "dpkg-deb", "-f", deb, "Depends")
		if err == nil {
			_, err = run(ctx, tmp, "dpkg", "-x", deb, root)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if i == 0 {
			want = append(want, headerPackage.FindAllString(deps, -1)...)
		}
	}
	makefile := filepath.Join(root, "usr", "src", want[0], "Makefile")
	b, err := os.ReadFile(makefile)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	b = []byte(strings.ReplaceAll(string(b), "/usr/src/", filepath.Join(c.headerRoot(release), "usr", "src")+"/"))
	if err := os.WriteFile(makefile, b, 0o644); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	os.RemoveAll(filepath.Join(root, "usr", "share"))
	dst := c.headerRoot(release)
	if err := errors.Join(os.MkdirAll(filepath.Dir(dst), 0o755), os.Rename(root, dst)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return os.Chmod(dst, 0o755)
}

// download gets one package with apt, which needs no root, and gives its file.
func download(ctx context.Context, dir, pkg string) (string, error) {
	args := []string{"-q", "download", pkg}
	if os.Getuid() == 0 {
		args = append([]string{"-o", "APT::Sandbox::User=root"}, args...)
	}
	dir, err := os.MkdirTemp(dir, "deb-")
	if err != nil {
		return "", err
	}
	if _, err := run(ctx, dir, "apt-get", args...); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	return debs[0], nil
}
