package vm

import "strconv"

// Errno is a kernel error number, as helpers return it (negated) and as the
// host side of a map reports it.
type Errno int32

// The error numbers helpers and maps return (asm-generic/errno.h).
const (
	ENOENT       Errno = 2
	E2BIG        Errno = 7
	EAGAIN       Errno = 11
	ENOMEM       Errno = 12
	EFAULT       Errno = 14
	EBUSY        Errno = 16
	EEXIST       Errno = 17
	EINVAL       Errno = 22
	ENOSPC       Errno = 28
	ERANGE       Errno = 34
	ENAMETOOLONG Errno = 36
	EPROTO       Errno = 71
	EOPNOTSUPP   Errno = 95
)

var errnoNames = map[Errno]string{
	ENOENT: "ENOENT", E2BIG: "E2BIG", EAGAIN: "EAGAIN", ENOMEM: "ENOMEM", EFAULT: "EFAULT", EBUSY: "EBUSY", EEXIST: "EEXIST",
	EINVAL: "EINVAL", ENOSPC: "ENOSPC", ERANGE: "ERANGE", EPROTO: "EPROTO", ENAMETOOLONG: "ENAMETOOLONG", EOPNOTSUPP: "EOPNOTSUPP",
}

func (e Errno) Error() string {
	if s, ok := errnoNames[e]; ok {
		return s
	}
	return "errno " + strconv.Itoa(int(e))
}

// ret is e as a helper's return value: the negative number in r0.
func (e Errno) ret() uint64 { return uint64(-int64(e)) }
