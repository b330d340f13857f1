package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Find gives the kernel that a person means: a name of [KernelNames], a Debian package (.deb), a build tree, an unpacked
// package, or a bzImage. modules is the folder of a bzImage's modules; "" is /lib/modules/RELEASE.
func (c Cache) Find(ctx context.Context, ref, modules string) (Kernel, error) {
	if slices.Contains(KernelNames(), ref) {
		return c.Kernel(ctx, ref)
	}
	st, err := os.Stat(ref)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Kernel{}, &SetupError{What: "get kernel " + ref, Because: "there is no such file, and the names are " + strings.Join(KernelNames(), ", "), Err: err}
	case err != nil:
		return Kernel{}, fmt.Errorf("get kernel: %w", err)
	case st.IsDir():
		return fromDir(ref)
	case strings.HasSuffix(ref, ".deb"):
		return c.fromDeb(ctx, ref)
	}
	release, err := imageRelease(ref)
	if err != nil {
		return Kernel{}, err
	}
	if modules == "" {
		modules = filepath.Join("/lib/modules", release)
	}
	return Kernel{Name: filepath.Base(ref), Release: release, BzImage: ref, ModuleDir: modules}, nil
}

// fromDir takes a build tree, whose modules are where make left them, or an unpacked package.
func fromDir(dir string) (Kernel, error) {
	if images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*")); len(images) == 1 {
		release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
		return Kernel{Name: filepath.Base(dir), Release: release, Dir: dir}, nil
	}
	if images, _ := filepath.Glob(filepath.Join(dir, "usr", "lib", "modules", "*", "vmlinuz")); len(images) == 1 { // of Debian: 7.3
		mods := filepath.Dir(images[0])
		return Kernel{Name: filepath.Base(dir), Release: filepath.Base(mods), Dir: dir, BzImage: images[0], ModuleDir: mods}, nil
	}
	image := filepath.Join(dir, "arch", "x86", "boot", "bzImage")
	release, err := imageRelease(image)
	if errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, &SetupError{
			What: "get kernel " + dir, Because: "it has neither arch/x86/boot/bzImage nor one boot/vmlinuz-*", Err: err, Try: []string{"make -C " + dir + " bzImage modules"},
		}
	}
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{Name: filepath.Base(dir), Release: release, Dir: dir, BzImage: image, ModuleDir: dir}, nil
}

// fromDeb unpacks a package into the cache, again if one of its files is newer.
func (c Cache) fromDeb(ctx context.Context, deb string) (Kernel, error) {
	debs, err := parts(ctx, deb)
	if err != nil {
		return Kernel{}, err
	}
	var written time.Time // of the newest
	for _, d := range debs {
		st, err := os.Stat(d)
		if err != nil {
			return Kernel{}, fmt.Errorf("get kernel %s: %w", deb, err)
		}
		if st.ModTime().After(written) {
			written = st.ModTime()
		}
	}
	unlock, err := c.lock()
	if err != nil {
		return Kernel{}, fmt.Errorf("get kernel %s: %w", deb, err)
	}
	defer unlock()
	dst := filepath.Join(c.kernels(), "deb-"+strings.TrimSuffix(filepath.Base(deb), ".deb"))
	if st, err := os.Stat(dst); err == nil && st.ModTime().Equal(written) {
		return fromDir(dst)
	}
	tmp, err := os.MkdirTemp(c.kernels(), "tmp-")
	if err != nil {
		return Kernel{}, fmt.Errorf("get kernel %s: %w", deb, err)
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	for _, d := range debs {
		if _, err := run(ctx, "", "dpkg", "-x", d, root); err != nil {
			return Kernel{}, fmt.Errorf("get kernel %s: %w", deb, err)
		}
	}
	if err := errors.Join(os.Chtimes(root, written, written), os.RemoveAll(dst), os.Rename(root, dst)); err != nil {
		return Kernel{}, fmt.Errorf("get kernel %s: %w", deb, err)
	}
	return fromDir(dst)
}

// parts gives the files that a kernel's package is made of: itself, and, as Debian has it with 7.3, those with image, modules and
// what was built in, which it depends on and which lie beside it.
func parts(ctx context.Context, deb string) ([]string, error) {
	out, err := run(ctx, "", "dpkg-deb", "-f", deb, "Depends", "Architecture")
	if err != nil {
		return nil, fmt.Errorf("get kernel %s: %w", deb, err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(out) {
		k, v, _ := strings.Cut(line, ": ")
		fields[k] = strings.TrimSpace(v)
	}
	debs := []string{deb}
	var gone, names []string
	for _, m := range partOf.FindAllStringSubmatch(fields["Depends"], -1) {
		file := filepath.Join(filepath.Dir(deb), m[1]+"_"+m[2]+"_"+fields["Architecture"]+".deb")
		names = append(names, m[1])
		if _, err := os.Stat(file); err != nil {
			gone = append(gone, filepath.Base(file))
		}
		debs = append(debs, file)
	}
	if len(gone) > 0 {
		return nil, &SetupError{
			What: "get kernel " + deb, Because: "it consists of several packages, and beside it there is no " + strings.Join(gone, ", no "),
			Try: []string{"cd " + filepath.Dir(deb) + " && apt-get download " + strings.Join(names, " ")},
		}
	}
	return debs, nil
}

// partOf finds those packages, and their version, among what a package depends on.
var partOf = regexp.MustCompile(`\b(linux-(?:base|binary|modules)-[^ ,]+) \(= ([^)]+)\)`)

// imageRelease reads the release from a bzImage: the setup header's kernel_version at 0x20e is an offset, from 0x200, of
// a text that begins with it (Documentation/arch/x86/boot.rst).
func imageRelease(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read kernel: %w", err)
	}
	defer f.Close()
	head := make([]byte, 0x8000)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return "", fmt.Errorf("read kernel: %w", err)
	}
	return parseRelease(name, head[:n])
}

func parseRelease(name string, head []byte) (string, error) {
	const magicAt, versionAt = 0x202, 0x20e
	if len(head) < 0x210 || string(head[magicAt:magicAt+4]) != "HdrS" {
		return "", &SetupError{What: "read kernel " + name, Because: fmt.Sprintf("no HdrS at %#x: it is no bzImage", magicAt)}
	}
	at := int(binary.LittleEndian.Uint16(head[versionAt:])) + 0x200
	if at == 0x200 || at >= len(head) {
		return "", &SetupError{What: "read kernel " + name, Because: fmt.Sprintf("offset %#x: its version is outside the setup code", versionAt)}
	}
	text, _, _ := bytes.Cut(head[at:], []byte{0})
	release, _, _ := strings.Cut(string(text), " ")
	return release, nil
}
