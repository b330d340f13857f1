package dump_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	os.WriteFile("/proc/self/comm", []byte("dying"), 0)
	os.WriteFile("/dev/kmsg", []byte("fathom: last words\n"), 0)
	if err := json.NewEncoder(os.Stdout).Encode(witness("/proc/kallsyms", "/sys/kernel/notes")); err != nil {
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

// swapPages is the size of the disk that is swapped to.
const swapPages = 512

// witness reads what the kernel says of itself, and what else is named.
func witness(more ...string) map[string]string {
	w := map[string]string{}
	for _, pattern := range append(more,
		"/proc/[0-9]*/comm", "/proc/[0-9]*/stat", "/proc/[0-9]*/stack", "/proc/[0-9]*/task/[0-9]*/comm", "/proc/[0-9]*/status",
		"/proc/[0-9]*/cmdline", "/proc/[0-9]*/maps", "/proc/net/tcp", "/proc/net/udp", "/proc/net/unix", "/proc/net/netlink",
		"/proc/devices", "/proc/sysvipc/*", "/proc/timer_list", "/proc/modules", "/proc/mounts",
		"/proc/interrupts", "/proc/meminfo", "/proc/slabinfo", "/proc/net/dev", "/proc/version", "/proc/cmdline",
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
