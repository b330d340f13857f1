package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/guest/kmod"
)

// debian says which of Debian's packages each kernel name stands for. The newest that matches is taken.
var debian = []struct {
	name string
	pkg  *regexp.Regexp
}{
	{"debian-6.12", regexp.MustCompile(`^linux-image-6\.12\.[0-9.]+\+deb1[23](\+[0-9]+)?-amd64$`)},
	{"debian-6.12-cloud", regexp.MustCompile(`^linux-image-6\.12\.[0-9.]+\+deb1[23](\+[0-9]+)?-cloud-amd64$`)},
	{"debian-6.1", regexp.MustCompile(`^linux-image-6\.1\.[0-9.]+-[0-9]+-amd64$`)},
}

// KernelNames are the kernels [Cache.Kernel] knows, newest first.
func KernelNames() []string {
	var names []string
	for _, d := range debian {
		names = append(names, d.name)
	}
	return names
}

// NameOf is the name of [KernelNames] that a release, as uname -r says it, is a kernel of; "" if it is of none.
func NameOf(release string) string {
	for _, d := range debian {
		if d.pkg.MatchString("linux-image-" + release) {
			return d.name
		}
	}
	return ""
}

// Kernel is an unpacked kernel package.
type Kernel struct {
	Name    string // debian-6.12
	Package string // linux-image-6.12.117+deb12-amd64
	Release string // 6.12.117+deb12-amd64, as uname -r says
	Dir     string // where boot/ and lib/modules/ are

	BzImage   string // the image, if it is not boot/vmlinuz-RELEASE of Dir
	ModuleDir string // the modules, if they are not in lib/modules/RELEASE of Dir
}

// Image is the path of the bzImage.
func (k Kernel) Image() string {
	if k.BzImage != "" {
		return k.BzImage
	}
	return filepath.Join(k.Dir, "boot", "vmlinuz-"+k.Release)
}

// Modules lists the kernel's module folder.
func (k Kernel) Modules() (*kmod.Dir, error) {
	dir := k.ModuleDir
	if dir == "" {
		dir = filepath.Join(k.Dir, "lib", "modules", k.Release)
	}
	d, err := kmod.Open(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k.Name, err)
	}
	return d, nil
}

// SetupError is something this machine lacks before a guest can boot, with the way out.
type SetupError struct {
	What    string   // what failed: "get kernel debian-6.1"
	Because string   // the evidence
	Try     []string // commands
	Err     error    // may be nil
}

// Error has one line for each of what, because and try.
func (e *SetupError) Error() string {
	s := e.What + "\nbecause: " + e.Because
	for _, t := range e.Try {
		s += "\ntry: " + t
	}
	return s
}

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

// Cache is a folder that keeps unpacked kernels. Several processes may use it at once.
type Cache struct{ Dir string }

// UserCache is the user's cache folder, $XDG_CACHE_HOME/fathom.
func UserCache() (Cache, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return Cache{}, &SetupError{What: "find the cache folder", Because: err.Error(), Try: []string{"export XDG_CACHE_HOME=/var/tmp/cache"}, Err: err}
	}
	return Cache{Dir: filepath.Join(dir, "fathom")}, nil
}

// Kernel returns the newest cached package for a name of [KernelNames]. If there is none, it downloads the newest that apt
// has, which needs the network but no root.
func (c Cache) Kernel(ctx context.Context, name string) (Kernel, error) {
	pkg := pattern(name)
	if pkg == nil {
		return Kernel{}, fmt.Errorf("get kernel %s: there are %s", name, strings.Join(KernelNames(), ", "))
	}
	if k, ok := c.cached(name, pkg); ok {
		return k, nil
	}
	return c.Update(ctx, name)
}

// Update is [Cache.Kernel] that asks apt in any case, and so gets a newer package if there is one.
func (c Cache) Update(ctx context.Context, name string) (Kernel, error) {
	pkg := pattern(name)
	if pkg == nil {
		return Kernel{}, fmt.Errorf("get kernel %s: there are %s", name, strings.Join(KernelNames(), ", "))
	}
	unlock, err := c.lock()
	if err != nil {
		return Kernel{}, fmt.Errorf("get kernel %s: %w", name, err)
	}
	defer unlock()
	latest, err := newest(ctx, name, pkg)
	if err != nil {
		return Kernel{}, err
	}
	if k, ok := c.cached(name, pkg); ok && k.Package == latest { // another process was faster
		return k, nil
	}
	if err := c.unpack(ctx, name, latest); err != nil {
		return Kernel{}, err
	}
	k, ok := c.cached(name, pkg)
	if !ok {
		return Kernel{}, fmt.Errorf("get kernel %s: %s holds no boot/vmlinuz", name, latest)
	}
	return k, nil
}

func pattern(name string) *regexp.Regexp {
	for _, d := range debian {
		if d.name == name {
			return d.pkg
		}
	}
	return nil
}

func (c Cache) kernels() string { return filepath.Join(c.Dir, "kernels") }

// cached finds the newest whole package in the cache.
func (c Cache) cached(name string, pkg *regexp.Regexp) (Kernel, bool) {
	dirs, _ := filepath.Glob(filepath.Join(c.kernels(), "linux-image-*"))
	dirs = slices.DeleteFunc(dirs, func(d string) bool { return !pkg.MatchString(filepath.Base(d)) })
	if len(dirs) == 0 {
		return Kernel{}, false
	}
	dir := slices.MaxFunc(dirs, func(a, b string) int { return compareVersions(filepath.Base(a), filepath.Base(b)) })
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(images) != 1 {
		return Kernel{}, false
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return Kernel{Name: name, Package: filepath.Base(dir), Release: release, Dir: dir}, true
}

// lock serialises processes that fill the cache, and removes what a killed one left.
func (c Cache) lock() (unlock func(), err error) {
	if err := os.MkdirAll(c.kernels(), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.kernels(), "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	stale, _ := filepath.Glob(filepath.Join(c.kernels(), "tmp-*"))
	for _, dir := range stale {
		os.RemoveAll(dir)
	}
	return func() { f.Close() }, nil
}

// newest asks apt which package a name stands for today.
func newest(ctx context.Context, name string, pkg *regexp.Regexp) (string, error) {
	out, err := run(ctx, "", "apt-cache", "search", "--names-only", "^linux-image-6")
	if err != nil {
		return "", &SetupError{What: "get kernel " + name, Because: err.Error(), Try: []string{"apt-get update"}, Err: err}
	}
	var names []string
	for line := range strings.Lines(out) {
		if n, _, _ := strings.Cut(line, " "); pkg.MatchString(n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "", &SetupError{
			What:    "get kernel " + name,
			Because: fmt.Sprintf("apt-cache search finds no package %s: apt has no package lists, or /etc/apt/sources.list* do not have all of Debian 12 (6.12 is in bookworm-security), or this is a later Debian, which has no 6.1", pkg),
			Try:     []string{"apt-get update"},
		}
	}
	return slices.MaxFunc(names, compareVersions), nil
}

// unpack downloads and unpacks one package beside its final place, then renames it.
func (c Cache) unpack(ctx context.Context, name, pkg string) error {
	tmp, err := os.MkdirTemp(c.kernels(), "tmp-")
	if err != nil {
		return fmt.Errorf("get kernel %s: %w", name, err)
	}
	defer os.RemoveAll(tmp)
	deb, err := download(ctx, tmp, pkg)
	if err != nil {
		return &SetupError{What: "get kernel " + name, Because: err.Error(), Try: []string{"apt-get update"}, Err: err}
	}
	root := filepath.Join(tmp, "root")
	if _, err := run(ctx, tmp, "dpkg", "-x", deb, root); err != nil {
		return fmt.Errorf("get kernel %s: %w", name, err)
	}
	os.RemoveAll(filepath.Join(root, "usr", "share"))
	dst := filepath.Join(c.kernels(), pkg)
	if err := os.Rename(root, dst); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("get kernel %s: %w", name, err)
	}
	return os.Chmod(dst, 0o755)
}

// run runs a tool of the machine and returns its output; the error has the last line it wrote.
func run(ctx context.Context, dir, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s: %w: %s", strings.Join(append([]string{tool}, args...), " "), err, lines[len(lines)-1])
	}
	return string(out), nil
}

// compareVersions orders names with numbers in them: 6.12.9 before 6.12.100.
func compareVersions(a, b string) int {
	as, bs := versionParts(a), versionParts(b)
	return slices.CompareFunc(as, bs, func(x, y string) int {
		nx, ex := strconv.Atoi(x)
		ny, ey := strconv.Atoi(y)
		if ex == nil && ey == nil {
			return cmp.Compare(nx, ny)
		}
		return cmp.Compare(x, y)
	})
}

var versionPart = regexp.MustCompile(`[0-9]+|[^0-9]+`)

func versionParts(s string) []string { return versionPart.FindAllString(s, -1) }
