package examples_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// What some tools wait for breaks the machine it happens on: it is done in guests only.

// guestConfig gives guests block devices that keep what is written. The RAM disk does so before it returns, so that pages
// swapped out to it are freed at once. One more device has the file system in disk.
func guestConfig(disk string) ktest.Config {
	c := ktest.Config{
		Modules: []string{"null_blk nr_devices=4 memory_backed=1 gb=1", "brd? rd_nr=1 rd_size=32768", "raid1?", "crc32c_generic?", "xfs?", "dummy?", "virtio_blk?", "virtio_pci?"},
		Kernels: []string{"debian-6.1", "debian-6.12"},
	}
	if disk != "" {
		c.QEMUArgs = []string{"-drive", "file=" + disk + ",if=none,id=xfs,format=raw", "-device", "virtio-blk-pci,drive=xfs"}
	}
	return c
}

// xfsDisk makes an empty file system, of the least size that mkfs.xfs agrees to; "" without the tool.
func xfsDisk(dir string) string {
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		return ""
	}
	disk := filepath.Join(dir, "xfs.img")
	if b, err := exec.Command(mkfs, "-q", "-d", "file,name="+disk+",size=300m").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "mkfs.xfs: %v\n%s", err, b)
		return ""
	}
	return disk
}

// blackhole has TCP connect through a device whose queue drops everything: segments are dropped, and sent again.
func blackhole(t *testing.T, stop chan struct{}) {
	dev := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "hole"}}
	addr, _ := netlink.ParseAddr("10.99.0.1/24")
	for _, err := range []error{netlink.LinkAdd(dev), netlink.AddrAdd(dev, addr), netlink.LinkSetUp(dev)} {
		if err != nil {
			t.Error(err)
			return
		}
	}
	defer netlink.LinkDel(dev)
	link, err := netlink.LinkByName("hole")
	if err != nil {
		t.Error(err)
		return
	}
	q := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}, QdiscType: "blackhole"}
	if err := netlink.QdiscAdd(q); err != nil {
		t.Error(err)
		return
	}
	for port := 1; ; port++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 99, 0, 2}})
		if ended(stop, 200*time.Millisecond) {
			return
		}
	}
}

// ended says if stop was closed within d.
func ended(stop chan struct{}, d time.Duration) bool {
	select {
	case <-stop:
		return true
	case <-time.After(d):
		return false
	}
}

// outOfMemory has the kernel kill a process that offers itself; this one is not to be chosen.
func outOfMemory(t *testing.T, stop chan struct{}) {
	const own = "/proc/self/oom_score_adj"
	if err := os.WriteFile(own, []byte("-1000"), 0); err != nil {
		t.Error(err)
		return
	}
	defer os.WriteFile(own, []byte("0"), 0)
	self, _ := os.Executable()
	for !ended(stop, 100*time.Millisecond) {
		cmd := exec.Command(self, "victim")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Error(err)
			return
		}
		out.Read(make([]byte, 1)) // it is ready
		if err := os.WriteFile("/proc/sysrq-trigger", []byte("f"), 0); err != nil {
			t.Error(err)
		}
		end := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		end.Stop()
	}
}

// victim waits to be killed.
func victim() {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return
	}
	b := make([]byte, 32<<20)
	for i := range b {
		b[i] = 1
	}
	os.Stdout.Write(b[:1])
	time.Sleep(time.Minute)
}

// writeBack leaves pages dirty and asks for all to be written.
func writeBack(t *testing.T, stop chan struct{}) {
	f, err := os.OpenFile("/dev/nullb3", os.O_WRONLY, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for !ended(stop, 50*time.Millisecond) {
		f.WriteAt(make([]byte, 256<<10), 0)
		unix.Sync()
	}
}

// swapHeader is union swap_header (include/linux/swap.h) for n pages.
func swapHeader(n uint32) []byte {
	b := make([]byte, 4096)
	binary.LittleEndian.PutUint32(b[1024:], 1)
	binary.LittleEndian.PutUint32(b[1028:], n-1)
	copy(b[4086:], "SWAPSPACE2")
	return b
}

// swap pushes memory out and reads it again.
func swap(t *testing.T, stop chan struct{}) {
	const dev, size = "/dev/ram0", 1 << 20
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(swapHeader(4096))
		f.Sync()
		f.Close()
	}
	path, _ := unix.BytePtrFromString(dev)
	if err == nil {
		if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
			err = errno
		}
	}
	if err != nil {
		t.Error("swapon:", err)
		return
	}
	defer unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(path)), 0, 0)
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Munmap(m)
	for sum := byte(0); !ended(stop, 50*time.Millisecond); {
		for i := 0; i < size; i += 4096 {
			m[i]++
		}
		unix.Madvise(m, unix.MADV_PAGEOUT)
		for i := 0; i < size; i += 4096 {
			sum += m[i]
		}
	}
}

// Requests of the RAID driver (include/uapi/linux/raid/md_u.h), with the sizes of what they take.
const (
	setArrayInfo = 1<<30 | 72<<16 | 9<<8 | 0x23
	addNewDisk   = 1<<30 | 20<<16 | 9<<8 | 0x21
	runArray     = 1<<30 | 12<<16 | 9<<8 | 0x30
	stopArray    = 9<<8 | 0x32
)

// mirror builds a RAID 1 of two devices, without superblocks, and flushes it.
func mirror(t *testing.T, stop chan struct{}) {
	name := filepath.Join(t.TempDir(), "md7")
	if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(9, 7))); err != nil {
		t.Error(err)
		return
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	ioctl := func(what string, req uintptr, arg []int32) bool {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(&arg[0])))
		if errno != 0 {
			t.Errorf("%s: %v", what, errno)
		}
		return errno == 0
	}
	// mdu_array_info_t: versions, ctime, level, size in KiB, disks, minor, not_persistent, …, layout, chunk.
	array := make([]int32, 18)
	array[1], array[2] = 90, 3
	array[4], array[5], array[6], array[7], array[8], array[9] = 1, 64<<10, 2, 2, 7, 1
	if !ioctl("SET_ARRAY_INFO", setArrayInfo, array) {
		return
	}
	for i, dev := range []string{"/dev/nullb1", "/dev/nullb2"} {
		var st unix.Stat_t
		if err := unix.Stat(dev, &st); err != nil {
			t.Error(err)
			return
		}
		const activeInSync = 1<<1 | 1<<2
		disk := []int32{int32(i), int32(unix.Major(st.Rdev)), int32(unix.Minor(st.Rdev)), int32(i), activeInSync}
		if !ioctl("ADD_NEW_DISK", addNewDisk, disk) {
			return
		}
	}
	if !ioctl("RUN_ARRAY", runArray, make([]int32, 3)) {
		return
	}
	defer ioctl("STOP_ARRAY", stopArray, make([]int32, 1))
	for !ended(stop, 50*time.Millisecond) {
		unix.Pwrite(fd, make([]byte, 4096), 0)
		unix.Fsync(fd)
	}
}

// xfs writes and reads files on a file system that this machine made.
func xfs(t *testing.T, stop chan struct{}) {
	dir := t.TempDir()
	if err := unix.Mount("/dev/vda", dir, "xfs", 0, ""); err != nil {
		t.Errorf("mount XFS: %v", err)
		return
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) // the tool may have something open there yet
	for n := 0; !ended(stop, 50*time.Millisecond); n++ {
		files(dir, n)
	}
}
