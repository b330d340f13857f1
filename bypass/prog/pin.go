package prog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/lease"
)

// LeaseKind is the kind of a pin's lease; [Clean] is its cleaner.
const LeaseKind = "bpf-pin"

// Root is where leases are, and the bpffs below.
type Root struct{ Leases lease.Dir }

// dir is the bpffs.
func (r Root) dir() string { return filepath.Join(r.Leases.Path, "bpf") }

// mount mounts the bpffs, if it is not.
func (r Root) mount() error {
	dir := r.dir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", dir, err)
	}
	return nil
}

// key names the pin of a hook of a device: namespaces have devices of the same number, and of the same name.
func key(dev xsk.Device, hook Hook) (name string, err error) {
	err = dev.In(func() error {
		ifi, err := net.InterfaceByName(dev.Name)
		if err != nil {
			return fmt.Errorf("find device %s: %w", dev, err)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("name network namespace: %w", err)
		}
		defer unix.Close(fd)
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if err != nil {
			return fmt.Errorf("read network namespace's cookie: %w", err)
		}
		name = fmt.Sprintf("%s-%d-%d", hook, cookie, ifi.Index)
		return nil
	})
	return name, err
}

// data is what a pin's lease remembers.
type data struct {
	Path   string `json:"path"`
	Device string `json:"device"`
	Hook   Hook   `json:"hook"`
}

// Pin gives a link a name, so that it outlives this process until Detach. There is one for each hook of a device.
func (r Root) Pin(dev xsk.Device, hook Hook, l link.Link) (path string, err error) {
	name, err := key(dev, hook)
	if err != nil {
		return "", err
	}
	if err := r.mount(); err != nil {
		return "", err
	}
	path = filepath.Join(r.dir(), name)
	rec, err := r.Leases.Claim(LeaseKind, name, data{path, dev.String(), hook}, nil)
	if err != nil {
		return "", fmt.Errorf("pin program of %s: %w", dev, err)
	}
	if err := l.Pin(path); err != nil {
		return "", errors.Join(fmt.Errorf("pin program of %s: %w", dev, err), rec.Release())
	}
	return path, rec.Keep()
}

// Replace puts another program in the place of a pinned one, at once: no packet meets none, or both.
func (r Root) Replace(dev xsk.Device, hook Hook, o *Object) error {
	name, err := key(dev, hook)
	if err != nil {
		return err
	}
	l, err := link.LoadPinnedLink(filepath.Join(r.dir(), name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace program of %s: %w: none was attached with --pin", dev, err)
	} else if err != nil {
		return fmt.Errorf("open link of %s: %w", dev, err)
	}
	defer l.Close()
	if err := l.Update(o.Prog); err != nil {
		return fmt.Errorf("replace program of %s: %w", dev, err)
	}
	return nil
}

// Detach takes a pinned program away.
func (r Root) Detach(dev xsk.Device, hook Hook) error {
	name, err := key(dev, hook)
	if err != nil {
		return err
	}
	recs, err := r.Leases.List()
	if err != nil {
		return err
	}
	for _, rec := range recs {
		if rec.Kind == LeaseKind && rec.Name == name {
			return r.remove(rec)
		}
	}
	return fmt.Errorf("detach program from %s of %s: %w: none was attached with --pin", hook, dev, fs.ErrNotExist)
}

// remove takes a pin away, under a lease of this process meanwhile.
func (r Root) remove(rec lease.Record) error {
	l, err := r.Leases.Adopt(rec)
	if err != nil {
		return err
	}
	if err := Clean(rec); err != nil {
		return err
	}
	if err := l.Release(); err != nil {
		return err
	}
	return r.unmount()
}

// unmount takes the bpffs away with its last pin. The kernel refuses while there is another, or somebody looks at it.
func (r Root) unmount() error {
	recs, err := r.Leases.List()
	if err != nil || slices.ContainsFunc(recs, func(rec lease.Record) bool { return rec.Kind == LeaseKind }) {
		return err
	}
	if err := unix.Unmount(r.dir(), unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EBUSY && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", r.dir(), err)
	}
	if err := os.Remove(r.dir()); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// Clean is the lease's cleaner of pins.
func Clean(rec lease.Record) error {
	var d data
	if err := json.Unmarshal(rec.Data, &d); err != nil {
		return fmt.Errorf("read lease of %s: %w", rec.Name, err)
	}
	if filepath.Base(d.Path) != rec.Name || strings.Contains(rec.Name, "/") {
		return fmt.Errorf("lease of %s names %s", rec.Name, d.Path)
	}
	if err := os.Remove(d.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}

// Sweep removes pins whose device is gone: the kernel took their programs away with it.
func (r Root) Sweep() error {
	recs, err := r.Leases.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, rec := range recs {
		if rec.Kind == LeaseKind && rec.Kept && gone(rec) {
			errs = append(errs, r.remove(rec))
		}
	}
	return errors.Join(errs...)
}

// gone says if a pin's link has no device any more.
func gone(rec lease.Record) bool {
	var d data
	if json.Unmarshal(rec.Data, &d) != nil {
		return false
	}
	l, err := link.LoadPinnedLink(d.Path, nil)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false
	}
	if x := info.XDP(); x != nil {
		return x.Ifindex == 0
	}
	x := info.TCX()
	return x != nil && x.Ifindex == 0
}
