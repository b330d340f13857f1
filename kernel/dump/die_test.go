package dump_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// die runs in the guest: it writes what /proc says of the kernel as JSON, path to contents, and crashes the kernel.
func die() int {
	if len(os.Args) > 2 {
		if err := loadCapture(); err != nil {
			fmt.Fprintln(os.Stderr, "load the capture kernel:", err)
			return 1
		}
	}
	keep, err := os.Open("/etc/hostname") // a file that a walk over our descriptors must find
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer keep.Close()
	ear, err := net.Listen("tcp4", "0.0.0.0:4242") // and sockets that walks over them must find
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer ear.Close()
	for i := range 2 { // one connection stays, one has ended
		call, err := net.Dial("tcp4", "127.0.0.1:4242")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer call.Close()
		end, err := ear.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer end.Close()
		if i == 0 {
			call.Close()
			end.Close()
		}
	}
	box, err := net.ListenPacket("udp4", "0.0.0.0:4343")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer box.Close()
	for i, size := range []int{4096, 123456} {
		if _, err := unix.SysvShmGet(77+i, size, unix.IPC_CREAT|0o640); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	named, err := net.Listen("unix", "/corpse.sock")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer named.Close()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "corpse", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 77})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer m.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "corpse", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer p.Close()
	if err := swapOn("/dev/vda"); err != nil {
		fmt.Fprintln(os.Stderr, "swap:", err)
		return 1
	}
	if err := addNeighbours(); err != nil {
		fmt.Fprintln(os.Stderr, "add neighbours:", err)
		return 1
	}
	if err := readSlowly("/dev/vdb"); err != nil {
		fmt.Fprintln(os.Stderr, "a slow disk:", err)
		return 1
	}
	os.WriteFile("/proc/sys/kernel/kptr_restrict", []byte("1"), 0) // root sees addresses as they are
	os.WriteFile("/proc/self/comm", []byte("dying"), 0)
	os.WriteFile("/dev/kmsg", []byte("fathom: last words\n"), 0)
	w := map[string]string{}
	if err := recordEvents(w); err != nil {
		fmt.Fprintln(os.Stderr, "record events:", err)
		return 1
	}
	if err := unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		fmt.Fprintln(os.Stderr, "mount debugfs:", err)
		return 1
	}
	maps.Copy(w, witness("/proc/kallsyms", "/sys/kernel/notes", ownersFile))
	if err := json.NewEncoder(os.Stdout).Encode(w); err != nil {
		return 1
	}
	for { // until PID 1 has it, and the host
		if n, err := unix.IoctlGetInt(1, unix.TIOCINQ); err != nil || n == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Second)
	os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	return 1
}

// swapOn makes a disk, if there is one, an area to swap to: what mkswap writes (union swap_header), and swapon(2).
func swapOn(disk string) error {
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil || len(os.Args) > 2 { // the disk of a kernel with a capture kernel is for its memory
		return nil
	}
	defer f.Close()
	h := make([]byte, 4096)
	binary.LittleEndian.PutUint32(h[1024:], 1)
	binary.LittleEndian.PutUint32(h[1028:], swapPages-1)
	copy(h[4096-10:], "SWAPSPACE2")
	if _, err := f.WriteAt(h, 0); err != nil {
		return err
	}
	name, err := unix.BytePtrFromString(disk)
	if err != nil {
		return err
	}
	if _, _, no := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(name)), 0, 0); no != 0 {
		return no
	}
	return nil
}

// addNeighbours tells the kernel of hardware addresses (arp(7)): one that stays, one that may become stale.
func addNeighbours() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i, flags := range []byte{0x2 | 0x4, 0x2} { // ATF_COM, ATF_PERM
		req := make([]byte, 68) // struct arpreq: addresses of protocol and hardware, flags, mask, device
		req[0], req[16], req[32] = unix.AF_INET, unix.ARPHRD_ETHER, flags
		copy(req[4:], []byte{192, 0, 2, byte(7 + i)})
		copy(req[18:], []byte{2, 0, 0, 0, 0, byte(7 + i)})
		copy(req[52:], "dummy0")
		if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSARP, uintptr(unsafe.Pointer(&req[0]))); no != 0 {
			return no
		}
	}
	return nil
}

// ownersFile says who allocated the objects of a slab cache.
const ownersFile = "/sys/kernel/debug/slab/signal_cache/alloc_traces"

// slowReads is how many reads a disk is given that answers one in eight seconds; a few it answers at once.
const slowReads = 32

// readSlowly has reads wait for a disk, if there is one, and returns when it has some of them.
func readSlowly(disk string) error {
	if _, err := os.Stat(disk); err != nil {
		return nil
	}
	for i := range slowReads {
		go func() {
			f, err := os.OpenFile(disk, os.O_RDONLY|unix.O_DIRECT, 0)
			if err != nil {
				return
			}
			defer f.Close()
			b := make([]byte, 8192)
			at := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
			f.ReadAt(b[at:at+4096], int64(i)<<20)
		}()
	}
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile("/sys/block/vdb/inflight")
		if err != nil {
			return err
		}
		if f := strings.Fields(string(b)); len(f) == 2 && len(f[0]) > 1 { // ten or more
			return nil
		}
	}
	return errors.New("no reads wait for it")
}

// pagesOf says where the pages of a process are that are in memory: address and page, a line for each.
func pagesOf(pid string) string {
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		return err.Error()
	}
	f, err := os.Open("/proc/" + pid + "/pagemap")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var out strings.Builder
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil || strings.Contains(line, "[vsyscall]") {
			continue
		}
		for b := make([]byte, 64<<10); from < to; {
			n, _ := f.ReadAt(b[:min(uint64(len(b)), (to-from)/4096*8)], int64(from/4096*8))
			for i := 0; i+8 <= n; i += 8 {
				if e := binary.LittleEndian.Uint64(b[i:]); e>>63 != 0 {
					fmt.Fprintf(&out, "%x %x\n", from, e&(1<<55-1)<<12)
				}
				from += 4096
			}
			if n == 0 {
				break
			}
		}
	}
	return out.String()
}

// pageFlags says what /proc/kpageflags has of each 16th page.
func pageFlags() string {
	f, err := os.Open("/proc/kpageflags")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var out strings.Builder
	b := make([]byte, 4<<20)
	n, _ := f.ReadAt(b, 0)
	for i := 256; i*8+8 <= n; i += 16 {
		fmt.Fprintf(&out, "%x %x\n", i<<12, binary.LittleEndian.Uint64(b[i*8:]))
	}
	return out.String()
}

// swapPages is the size of the disk that is swapped to.
const swapPages = 512

// witness reads what the kernel says of itself, and what else is named.
func witness(more ...string) map[string]string {
	w := map[string]string{}
	for _, pattern := range append(more,
		"/proc/[0-9]*/comm", "/proc/[0-9]*/stat", "/proc/[0-9]*/stack", "/proc/[0-9]*/task/[0-9]*/comm", "/proc/[0-9]*/status",
		"/proc/[0-9]*/cmdline", "/proc/[0-9]*/maps", "/proc/net/tcp", "/proc/net/udp", "/proc/net/unix", "/proc/net/netlink", "/proc/net/arp",
		"/proc/devices", "/proc/sysvipc/*", "/proc/timer_list", "/proc/modules", "/proc/mounts",
		"/proc/interrupts", "/proc/meminfo", "/proc/slabinfo", "/proc/net/dev", "/proc/version", "/proc/cmdline",
		"/proc/vmallocinfo", "/proc/zoneinfo", "/proc/buddyinfo", "/proc/ioports", "/proc/bus/pci/devices", "/proc/irq/*/smp_affinity_list", "/sys/block/*/inflight",
		"/proc/sys/kernel/tainted", "/proc/uptime", "/proc/iomem", "/proc/swaps", "/proc/softirqs", "/proc/cpuinfo",
	) {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			if b, err := os.ReadFile(p); err == nil {
				w[p] = string(b)
			}
		}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, p := range fds {
		if to, err := os.Readlink(p); err == nil {
			w[p] = to
		}
	}
	w["dmesg"] = dmesg()
	w["pages of 1"], w["flags of pages"] = pagesOf("1"), pageFlags()
	return w
}

func dmesg() string {
	b := make([]byte, 4<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}
