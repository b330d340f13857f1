package live

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands and layouts of SIOCETHTOOL (include/uapi/linux/ethtool.h).
const (
	ethtoolGStrings = 0x1b
	ethtoolGStats   = 0x1d
	ethStats        = 1  // ETH_SS_STATS
	gstringLen      = 32 // ETH_GSTRING_LEN
	maxStats        = 1 << 14
)

// ethtool reads the counters that drivers keep. It runs in the namespace.
func (s *reading) ethtool() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.missing("counters of drivers", err)
		return
	}
	defer unix.Close(fd)
	for _, l := range s.links {
		err := s.driverStats(fd, l.name)
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) { // a driver that counts nothing; a link that has gone
			s.missing("counters of "+l.name+"'s driver", err)
		}
	}
}

func (s *reading) driverStats(fd int, dev string) error {
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, dev)
	if err != nil {
		return err
	}
	n := int(min(info.N_stats, maxStats))
	if n == 0 {
		return nil
	}
	names := make([]byte, 12+n*gstringLen) // struct ethtool_gstrings
	put := binary.NativeEndian.PutUint32
	put(names, ethtoolGStrings)
	put(names[4:], ethStats)
	put(names[8:], uint32(n))
	values := make([]byte, 8+n*8) // struct ethtool_stats
	put(values, ethtoolGStats)
	put(values[4:], uint32(n))
	if err := errors.Join(ethtoolIoctl(fd, dev, names), ethtoolIoctl(fd, dev, values)); err != nil {
		return err
	}
	for i := range min(n, int(binary.NativeEndian.Uint32(values[4:]))) {
		name := names[12+i*gstringLen:][:gstringLen]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		s.out.Counters["ethtool."+dev+"."+string(bytes.TrimSpace(name))] = binary.NativeEndian.Uint64(values[8+i*8:])
	}
	return nil
}

// ethtoolIoctl hands the kernel a buffer whose size it was told in its header. struct ifreq holds a pointer to it, which
// must not move meanwhile.
func ethtoolIoctl(fd int, dev string, buf []byte) error {
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifr.name[:unix.IFNAMSIZ-1], dev)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&buf[0])
	ifr.data = unsafe.Pointer(&buf[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return errno
	}
	return nil
}
