package live

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/procnet"
)

// files reads /proc on a thread in the namespace.
func (s *reading) files() {
	if s.want(Counters) {
		for _, f := range procnet.Files() {
			b, err := s.file("net/" + f.Name)
			if err == nil {
				f.Read(s.out.Counters, b)
			} else if !errors.Is(err, unix.ENOENT) {
				s.missing("counters", err)
			}
		}
	}
	if s.want(Groups) {
		s.groups()
	}
	if s.want(Sysctls) {
		s.out.Sysctls = map[string]string{}
		s.missing("sysctls", sysctls(s.out.Sysctls, filepath.Join(s.Proc, "sys/net"), "net"))
	} else if s.want(Deciding) {
		s.out.Sysctls = map[string]string{}
		s.missing("sysctls", deciding(s.out.Sysctls, filepath.Join(s.Proc, "sys/net")))
	}
}

func (s *reading) groups() {
	for _, f := range []struct {
		name  string
		parse func([]byte) []netstate.Group
	}{{"net/igmp", procnet.IGMP}, {"net/igmp6", procnet.IGMP6}} {
		b, err := s.file(f.name)
		if err == nil {
			s.out.Groups = append(s.out.Groups, f.parse(b)...)
		} else if !errors.Is(err, unix.ENOENT) {
			s.missing("multicast groups", err)
		}
	}
}

// file reads a file of the namespace the thread is in.
func (r *Reader) file(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(r.Proc, "thread-self", name))
}

// sysctls reads a tree of settings. A dot in the name of a folder is a slash in that of the setting, as sysctl(8) has it:
// "net.ipv4.conf.eth0/5.forwarding". What is only for writing, or has no value yet (EIO), is left out.
func sysctls(into map[string]string, dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		key := prefix + "." + netstate.SysctlName(e.Name())
		path := dir + "/" + e.Name()
		if e.IsDir() {
			if err := sysctls(into, path, key); err != nil && !errors.Is(err, unix.ENOENT) { // a device that has gone
				return err
			}
			continue
		}
		if v, err := readShort(path); err == nil {
			into[key] = v
		}
	}
	return nil
}

// deciding reads the settings of [netstate.DecidingSysctls]. What this kernel has not got is left out.
func deciding(into map[string]string, dir string) error {
	devices := map[string][]os.DirEntry{} // by the folder that has one for each
	read := func(path, key string) {
		if v, err := readShort(path); err == nil {
			into[key] = v
		}
	}
	for _, p := range netstate.DecidingSysctls() {
		folder, name, each := strings.Cut(p, "/*/")
		key := "net." + strings.ReplaceAll(folder, "/", ".")
		if !each {
			read(dir+"/"+folder, key)
			continue
		}
		if _, known := devices[folder]; !known {
			entries, err := os.ReadDir(dir + "/" + folder)
			if err != nil && !errors.Is(err, unix.ENOENT) { // no IPv6
				return err
			}
			devices[folder] = entries
		}
		for _, e := range devices[folder] {
			read(dir+"/"+folder+"/"+e.Name()+"/"+name, key+"."+netstate.SysctlName(e.Name())+"."+name)
		}
	}
	return nil
}

// readShort reads a setting with few system calls: there are thousands.
func readShort(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var b [4096]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b[:n]), "\n"), nil
}
