package live

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/sockdiag"
)

// moreSockets asks for those of protocols that are loaded: to ask for others would load them.
func (s *reading) moreSockets() {
	if !s.want(MoreSockets) {
		return
	}
	var loaded []string
	s.missing("sockets", s.ns.Do(func() error {
		b, err := s.file("net/protocols")
		for l := range strings.Lines(string(b)) {
			loaded = append(loaded, strings.Fields(l)[0])
		}
		return err
	}))
	inet := func(b []byte) (netstate.Socket, error) { return sockdiag.DecodeINet(sockdiag.SCTP, b) }
	for _, q := range []struct {
		protocol, config string
		query
	}{
		{"SCTP", "CONFIG_INET_SCTP_DIAG", query{"sctp", "", sockdiag.INetRequest(sockdiag.INet, sockdiag.SCTP), inet}},
		{"SCTP", "CONFIG_INET_SCTP_DIAG", query{"sctp of IPv6", "", sockdiag.INetRequest(sockdiag.INet6, sockdiag.SCTP), inet}},
		{"AF_VSOCK", "CONFIG_VSOCKETS_DIAG", query{"vsock", "", sockdiag.VSockRequest(), sockdiag.DecodeVSock}},
	} {
		if slices.Contains(loaded, q.protocol) {
			if err := s.diag(q.query); err != nil {
				s.missing("sockets "+q.what, feature.Unsupported(q.config, "SOCK_DIAG_BY_FAMILY", err))
			}
		}
	}
}

// Orphans gives the raw, packet, SCTP and AF_VSOCK sockets of the namespace that no process has open: code of the kernel holds them, or
// they are on their way from one process to another. Who has what only root sees of all processes, those of this PID namespace.
func (r *Reader) Orphans() (out []netstate.Socket, missing []netstate.Missing) {
	if _, err := os.ReadDir(filepath.Join(r.Proc, "1", "fd")); errors.Is(err, os.ErrPermission) {
		return nil, []netstate.Missing{{What: "raw, packet, SCTP and vsock sockets that no process has", Err: err.Error()}}
	}
	nobody := func() map[uint64]netstate.Socket {
		s := r.Read(Sockets | MoreSockets)
		r.Owners(s)
		found := map[uint64]netstate.Socket{}
		for _, k := range s.Sockets {
			if k.Inode != 0 && k.Owner == "" && slices.Contains([]string{"raw", "packet", "sctp", "vsock"}, k.Proto) {
				found[k.Inode] = k
			}
		}
		missing = slices.DeleteFunc(s.Missing, func(m netstate.Missing) bool { return strings.Contains(m.What, "AF_XDP") })
		return found
	}
	// Of a process that began or ended meanwhile one of both readings may see half.
	first := nobody()
	for inode, k := range nobody() {
		if _, ok := first[inode]; ok {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b netstate.Socket) int { return int(int64(a.Inode) - int64(b.Inode)) })
	return out, missing
}

// diag asks sock_diag one question, and keeps the answers if it could be answered as a whole.
func (s *reading) diag(q query) error {
	n := len(s.out.Sockets)
	err := s.dump(unix.NETLINK_SOCK_DIAG, sockdiag.ByFamily, q.body, func(_ uint16, b []byte) error {
		sk, err := q.decode(b)
		if err == nil {
			s.out.Sockets = append(s.out.Sockets, sk)
		}
		return err
	})
	if err != nil {
		s.out.Sockets = s.out.Sockets[:n]
	}
	return err
}
