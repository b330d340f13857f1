package guest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Vmlinux is a kernel with its debug information: what the machine has installed, or Debian's, downloaded once into the
// cache (hundreds of megabytes), of which only that file and the modules asked for ("veth") are kept. Modules are beside it,
// as NAME.ko.
func (c Cache) Vmlinux(ctx context.Context, k Kernel, modules ...string) (string, error) {
	if installed := "/usr/lib/debug/boot/vmlinux-" + k.Release; exists(installed) && len(modules) == 0 {
		return installed, nil
	}
	dir := filepath.Join(c.Dir, "debuginfo", k.Release)
	want := map[string]string{"boot/vmlinux-" + k.Release: filepath.Join(dir, "vmlinux")}
	for _, m := range modules {
		want["/"+m+".ko"] = filepath.Join(dir, m+".ko")
	}
	whole := func() bool {
		for _, name := range want {
			if !exists(name) {
				return false
			}
		}
		return true
	}
	if whole() {
		return filepath.Join(dir, "vmlinux"), nil
	}
	what := "get debug information of " + k.Release
	unlock, err := c.lock()
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	defer unlock()
	if whole() { // another process was faster
		return filepath.Join(dir, "vmlinux"), nil
	}
	tmp, err := os.MkdirTemp(c.kernels(), "tmp-")
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	defer os.RemoveAll(tmp)
	deb, err := download(ctx, tmp, k.Package+"-dbg")
	if err != nil {
		return "", &SetupError{What: what, Because: err.Error(), Try: []string{"apt-get update"}, Err: err}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if err := pick(ctx, deb, want); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return filepath.Join(dir, "vmlinux"), nil
}

// pick unpacks the files of a package whose names end as the keys of want say.
func pick(ctx context.Context, deb string, want map[string]string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	left := len(want)
	for r := tar.NewReader(out); left > 0; {
		h, err := r.Next()
		if err != nil {
			return errors.Join(err, cmd.Wait())
		}
		for suffix, dst := range want {
			if h.Typeflag != tar.TypeReg || !strings.HasSuffix(h.Name, suffix) {
				continue
			}
			left--
			if err := write(dst, r); err != nil {
				return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
			}
		}
	}
	return errors.Join(cmd.Process.Kill(), ended(cmd.Wait()))
}

// ended leaves out the error of a program that was ended because its output was no longer needed.
func ended(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// write writes a file that is there whole or not at all.
func write(name string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(name), "tmp-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
