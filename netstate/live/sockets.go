package live

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/procnet"
	"github.com/fathom-trace/fathom/netstate/sockdiag"
)

// query is one question to sock_diag; file is where /proc tells less of the same, "" if nowhere.
type query struct {
	what   string
	file   string
	body   []byte
	decode func([]byte) (netstate.Socket, error)
}

func queries() []query {
	var out []query
	for _, p := range []struct {
		name string
		num  uint8
	}{{"tcp", sockdiag.TCP}, {"udp", sockdiag.UDP}, {"udplite", sockdiag.UDPLite}, {"raw", sockdiag.Raw}} {
		decode := func(b []byte) (netstate.Socket, error) { return sockdiag.DecodeINet(p.num, b) }
		out = append(out,
			query{p.name, p.name, sockdiag.INetRequest(sockdiag.INet, p.num), decode},
			query{p.name + " of IPv6", p.name + "6", sockdiag.INetRequest(sockdiag.INet6, p.num), decode})
	}
	return append(out,
		query{"packet", "packet", sockdiag.PacketRequest(), sockdiag.DecodePacket},
		query{"AF_XDP", "", sockdiag.XDPRequest(), sockdiag.DecodeXDP})
}

// sockets asks sock_diag for each protocol, and reads /proc/net where a kernel lacks the module for that.
func (s *reading) sockets() {
	if !s.want(Sockets) {
		return
	}
	var files []query
	for _, q := range queries() {
		err := s.diag(q)
		if err == nil {
			continue
		}
		switch {
		case q.file != "":
			files = append(files, q)
		case hasXDP(): // a kernel that has them but cannot tell of them: CONFIG_XDP_SOCKETS_DIAG
			s.missing("sockets "+q.what, feature.Unsupported("CONFIG_XDP_SOCKETS_DIAG", "SOCK_DIAG_BY_FAMILY", err))
		}
	}
	s.socketFiles(files)
}

// hasXDP tries whether the kernel has AF_XDP.
func hasXDP() bool {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EAFNOSUPPORT)
}

func (s *reading) socketFiles(files []query) {
	if len(files) == 0 {
		return
	}
	err := s.ns.Do(func() error {
		for _, q := range files {
			b, err := s.file("net/" + q.file)
			switch {
			case errors.Is(err, unix.ENOENT): // the kernel does not have the protocol
			case err != nil:
				s.missing("sockets "+q.what, err)
			case q.file == "packet":
				s.out.Sockets = append(s.out.Sockets, procnet.Packets(b)...)
			default:
				s.out.Sockets = append(s.out.Sockets, procnet.Sockets(q.file, b)...)
			}
		}
		return nil
	})
	s.missing("sockets", err)
}

// Owners finds the process of each socket of states, by the descriptors of all processes. What other users' processes have is
// not seen without privilege.
func (r *Reader) Owners(states ...*netstate.State) {
	want := map[uint64][]*netstate.Socket{}
	for _, s := range states {
		for i := range s.Sockets {
			if sk := &s.Sockets[i]; sk.Inode != 0 && sk.Owner == "" {
				want[sk.Inode] = append(want[sk.Inode], sk)
			}
		}
	}
	procs, _ := os.ReadDir(r.Proc)
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || len(want) == 0 {
			continue
		}
		dir := filepath.Join(r.Proc, e.Name(), "fd")
		fds, _ := os.ReadDir(dir)
		for _, fd := range fds {
			to, _ := os.Readlink(filepath.Join(dir, fd.Name()))
			num, ok := strings.CutPrefix(to, "socket:[")
			if !ok {
				continue
			}
			ino, _ := strconv.ParseUint(strings.TrimSuffix(num, "]"), 10, 64)
			for _, sk := range want[ino] {
				sk.Owner = owner(r.Proc, pid)
			}
			delete(want, ino)
		}
	}
}
