package view

import (
	"net/netip"
	"strconv"
	"syscall"

	"github.com/fathom-trace/fathom/internal/sysno"
)

// Allocation flags of the kernel by bit (include/linux/gfp_types.h, since 6.10).
const (
	gfpDMA = 1 << iota
	gfpHighmem
	gfpDMA32
	gfpMovable
	gfpReclaimable
	gfpHigh
	gfpIO
	gfpFS
	gfpZero
	_
	gfpDirect
	gfpKswapd
	gfpWrite
	gfpNowarn
	gfpRetryMayfail
	gfpNofail
	gfpNoretry
	gfpMemalloc
	gfpComp
	gfpNomemalloc
	gfpHardwall
	gfpThisnode
	gfpAccount
	gfpZerotags
	gfpSkipZero
	gfpSkipKasan
	gfpNoObjExt

	gfpReclaim  = gfpDirect | gfpKswapd
	gfpKernel   = gfpReclaim | gfpIO | gfpFS
	gfpUser     = gfpKernel | gfpHardwall
	gfpHighuser = gfpUser | gfpHighmem
	gfpHumove   = gfpHighuser | gfpMovable | gfpSkipKasan
	gfpTransLgt = (gfpHumove | gfpComp | gfpNomemalloc | gfpNowarn) &^ gfpReclaim
)

// gfp are the names as %pGg of the kernel prints them: combinations before their parts.
var gfp = []struct {
	mask uint64
	name string
}{
	{gfpTransLgt | gfpDirect, "GFP_TRANSHUGE"}, {gfpTransLgt, "GFP_TRANSHUGE_LIGHT"}, {gfpHumove, "GFP_HIGHUSER_MOVABLE"},
	{gfpHighuser, "GFP_HIGHUSER"}, {gfpUser, "GFP_USER"}, {gfpKernel | gfpAccount, "GFP_KERNEL_ACCOUNT"}, {gfpKernel, "GFP_KERNEL"},
	{gfpReclaim | gfpIO, "GFP_NOFS"}, {gfpHigh | gfpKswapd, "GFP_ATOMIC"}, {gfpReclaim, "GFP_NOIO"},
	{gfpKswapd | gfpNowarn, "GFP_NOWAIT"}, {gfpDMA, "GFP_DMA"}, {gfpHighmem, "__GFP_HIGHMEM"}, {gfpDMA32, "GFP_DMA32"},
	{gfpHigh, "__GFP_HIGH"}, {gfpIO, "__GFP_IO"}, {gfpFS, "__GFP_FS"}, {gfpZero, "__GFP_ZERO"}, {gfpDirect, "__GFP_DIRECT_RECLAIM"},
	{gfpKswapd, "__GFP_KSWAPD_RECLAIM"}, {gfpWrite, "__GFP_WRITE"}, {gfpNowarn, "__GFP_NOWARN"},
	{gfpRetryMayfail, "__GFP_RETRY_MAYFAIL"}, {gfpNofail, "__GFP_NOFAIL"}, {gfpNoretry, "__GFP_NORETRY"},
	{gfpMemalloc, "__GFP_MEMALLOC"}, {gfpComp, "__GFP_COMP"}, {gfpNomemalloc, "__GFP_NOMEMALLOC"}, {gfpHardwall, "__GFP_HARDWALL"},
	{gfpThisnode, "__GFP_THISNODE"}, {gfpAccount, "__GFP_ACCOUNT"}, {gfpZerotags, "__GFP_ZEROTAGS"},
	{gfpSkipZero, "__GFP_SKIP_ZERO"}, {gfpSkipKasan, "__GFP_SKIP_KASAN"}, {gfpNoObjExt, "__GFP_NO_OBJ_EXT"},
}

// gfpFlags appends the names of flags; bits without one follow as a number.
func gfpFlags(dst []byte, n uint64) []byte {
	if n == 0 {
		return append(dst, '0')
	}
	from := len(dst)
	for _, g := range gfp {
		if n&g.mask != g.mask {
			continue
		}
		if len(dst) > from {
			dst = append(dst, '|')
		}
		dst = append(dst, g.name...)
		n &^= g.mask
	}
	if n == 0 {
		return dst
	}
	if len(dst) > from {
		dst = append(dst, '|')
	}
	return appendHex(dst, n)
}

// strerror gives an errno's text with a capital letter, as the C library prints it. The sign does not matter.
func strerror(n int64) string {
	if n < 0 {
		n = -n
	}
	if n == 0 {
		return "Success"
	}
	s := ""
	if n > 0 && n < 4096 {
		s = syscall.Errno(n).Error()
	}
	switch {
	case s == "" || s == "errno "+strconv.FormatInt(n, 10):
		return "Unknown error " + strconv.FormatInt(n, 10)
	case s[0] >= 'a' && s[0] <= 'z':
		return string(s[0]-32) + s[1:]
	}
	return s
}

// Address families as inet values carry them.
const (
	afInet  = 2
	afInet6 = 10
)

// inet prints an address as inet_ntop(3) does; an unknown family prints nothing.
func inet(b []byte) string {
	switch le.Uint32(b) {
	case afInet:
		return netip.AddrFrom4([4]byte(b[4:8])).String()
	case afInet6:
		a := [16]byte(b[4:20])
		if [12]byte(a[:]) == ([12]byte{}) && a[12]|a[13] != 0 { // ::1.2.3.4, which netip prints as two words
			return "::" + netip.AddrFrom4([4]byte(a[12:])).String()
		}
		return netip.AddrFrom16(a).String()
	}
	return ""
}

func mac(b []byte) string {
	var dst []byte
	for i, c := range b[:6] {
		if i > 0 {
			dst = append(dst, ':')
		}
		const up = "0123456789ABCDEF"
		dst = append(dst, up[c>>4], up[c&15])
	}
	return string(dst)
}

// signals say what each signal means, as strsignal(3) prints it.
var signals = [...]string{
	1: "Hangup", "Interrupt", "Quit", "Illegal instruction", "Trace/breakpoint trap", "Aborted", "Bus error",
	"Floating point exception", "Killed", "User defined signal 1", "Segmentation fault", "User defined signal 2", "Broken pipe",
	"Alarm clock", "Terminated", "Stack fault", "Child exited", "Continued", "Stopped (signal)", "Stopped",
	"Stopped (tty input)", "Stopped (tty output)", "Urgent I/O condition", "CPU time limit exceeded", "File size limit exceeded",
	"Virtual timer expired", "Profiling timer expired", "Window changed", "I/O possible", "Power failure", "Bad system call",
}

// Real-time signals (include/uapi/asm-generic/signal.h); the C library keeps the first two for itself.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// signalName gives a signal's meaning, "N/A" for what cannot be a signal.
func signalName(n int64) string {
	switch {
	case n > 0 && n < int64(len(signals)):
		return signals[n]
	case n >= sigRTMin && n <= sigRTMax:
		return "Real-time signal " + strconv.FormatInt(n-sigRTMin, 10)
	case n >= 0 && n <= sigRTMax:
		return "Unknown signal " + strconv.FormatInt(n, 10)
	}
	return "N/A"
}

// syscallName gives the name of a system call of an architecture.
func syscallName(arch string, nr uint64) string {
	if s := sysno.Name(arch, nr); s != "" {
		return s
	}
	return "Unknown system call"
}
