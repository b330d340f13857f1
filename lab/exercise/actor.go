package exercise

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// ActVerb is how the binary becomes a part of an exercise.
const ActVerb = "act"

const actPin = "pin"

// actors are the parts, by name. Each runs until it is killed.
var actors = map[string]struct {
	args int
	act  func(args []string) error
}{
	"read-file":   {1, actReadFile},
	"read-sizes":  {1, actReadSizes},
	"sockets":     {1, actSockets},
	"deaf":        {0, actDeaf},
	"kill":        {1, actKill},
	actPin:        {1, actPinMap},
	"serve":       {2, actServe},
	"connect":     {2, actConnect},
	"send":        {1, actSend},
	"receive":     {1, actReceive},
	"frames":      {4, actFrames},
	"del-address": {2, actDelAddress},
	"add-address": {2, actAddAddress},
	"get-address": {1, actGetAddress},
	"xsk":         {3, actXSK},
}

// Act plays a part.
func Act(args []string) error {
	if len(args) == 0 {
		return errors.New("act: which part?")
	}
	a, ok := actors[args[0]]
	if !ok || len(args)-1 != a.args {
		return fmt.Errorf("act: no part %q with %d arguments", args[0], len(args)-1)
	}
	if err := dieWith(os.Getenv(envOwner)); err != nil {
		return fmt.Errorf("act %s: %w", args[0], err)
	}
	if err := a.act(args[1:]); err != nil {
		return fmt.Errorf("act %s: %w", args[0], err)
	}
	return nil
}

// envOwner tells a part the process it belongs to.
const envOwner = "FATHOM_TRY"

// dieWith has the kernel end this process with its owner. What the owner asked for when it started us may be lost: the
// attribute is a thread's, and lab exec becomes another program from any of its threads.
func dieWith(owner string) error {
	signal.Reset(syscall.SIGTERM)
	runtime.LockOSThread() // for good: the attribute goes with the thread
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if ppid := strconv.Itoa(os.Getppid()); ppid != owner {
		return fmt.Errorf("it belongs to process %s, and its parent is %s", owner, ppid)
	}
	return nil
}

// forever does something again and again. An error is a state that passes: the next round may do.
func forever(every time.Duration, f func() error) error {
	for {
		_ = f()
		time.Sleep(every)
	}
}

func actReadFile(args []string) error {
	return forever(50*time.Millisecond, func() error {
		_, err := os.ReadFile(args[0])
		return err
	})
}

// actReadSizes reads four of five times between a power of two and the next, else anything.
func actReadSizes(args []string) error {
	often, err := strconv.Atoi(args[0])
	if err != nil || often < 1 || often > 1<<20 {
		return fmt.Errorf("size %q", args[0])
	}
	f, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, max(2*often, 32<<10))
	return forever(3*time.Millisecond, func() error {
		n := often + rand.IntN(often)
		if rand.IntN(5) == 0 {
			n = 1 + rand.IntN(1<<rand.IntN(15))
		}
		_, err := f.Read(buf[:n])
		return err
	})
}

// actSockets opens sockets and closes them, but for each keep-th if keep is not 0.
func actSockets(args []string) error {
	keep, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	const most = 800 // below any limit: then all is closed by starting over
	for n, held := 1, 0; held < most; n++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			break
		}
		if keep != 0 && n%keep == 0 {
			held++
		} else {
			unix.Close(fd)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return syscall.Exec(os.Args[0], os.Args, os.Environ())
}

func actDeaf([]string) error {
	signal.Ignore(syscall.SIGUSR1)
	select {}
}

func actKill(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil || pid <= 1 {
		return fmt.Errorf("process %q", args[0])
	}
	return forever(200*time.Millisecond, func() error { return syscall.Kill(pid, syscall.SIGUSR1) })
}

// actPinMap pins a map in a bpffs that only its own mount namespace has; who starts it makes that.
func actPinMap(args []string) error {
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return err
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer m.Close()
	return forever(200*time.Millisecond, func() error {
		return errors.Join(m.Unpin(), m.Pin(filepath.Join("/sys/fs/bpf", args[0])))
	})
}

// actServe accepts connections on an address's ports, "1,2,3", and closes them.
func actServe(args []string) error {
	for port := range strings.SplitSeq(args[1], ",") {
		l, err := net.Listen("tcp", net.JoinHostPort(args[0], port))
		if err != nil {
			return err
		}
		go forever(0, func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	select {}
}

func actConnect(args []string) error {
	ports := strings.Split(args[1], ",")
	i := 0
	return forever(30*time.Millisecond, func() error {
		i++
		c, err := net.DialTimeout("tcp", net.JoinHostPort(args[0], ports[i%len(ports)]), time.Second)
		if err != nil {
			return err
		}
		io.Copy(io.Discard, c)
		return c.Close()
	})
}

func actSend(args []string) error {
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	return forever(20*time.Millisecond, func() error {
		_, err := c.Write([]byte("hello"))
		return err
	})
}

func actReceive(args []string) error {
	c, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 2048)
	return forever(0, func() error {
		_, _, err := c.ReadFrom(buf)
		return err
	})
}

// actFrames sends datagrams as Ethernet frames, with whatever source: DEV MAC SOURCE DESTINATION:PORT.
func actFrames(args []string) error {
	dev, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(args[1])
	if err != nil {
		return err
	}
	src, err := netip.ParseAddr(args[2])
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddrPort(args[3])
	if err != nil || !src.Is4() || !dst.Addr().Is4() || len(mac) != 6 {
		return errors.Join(errors.New("addresses of IPv4 and Ethernet are wanted"), err)
	}
	frame := traffic.Frame{Dst: mac, Src: dev.HardwareAddr, From: netip.AddrPortFrom(src, dst.Port()+1), To: dst, Proto: unix.IPPROTO_UDP, Payload: []byte("hello")}.Bytes()
	out, err := traffic.OpenInjector(args[0])
	if err != nil {
		return err
	}
	defer out.Close()
	return forever(20*time.Millisecond, func() error { return out.Send(frame) })
}

// address works on an address of a device through netlink.
func address(dev, cidr string, every time.Duration, do func(h *netlink.Handle, l netlink.Link, a *netlink.Addr) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(dev)
	if err != nil {
		return err
	}
	var a *netlink.Addr
	if cidr != "" {
		if a, err = netlink.ParseAddr(cidr); err != nil {
			return err
		}
	}
	return forever(every, func() error { return do(h, l, a) })
}

func actDelAddress(args []string) error {
	return address(args[0], args[1], 300*time.Millisecond, func(h *netlink.Handle, l netlink.Link, a *netlink.Addr) error { return h.AddrDel(l, a) })
}

func actAddAddress(args []string) error {
	return address(args[0], args[1], 200*time.Millisecond, func(h *netlink.Handle, l netlink.Link, a *netlink.Addr) error { return h.AddrAdd(l, a) })
}

func actGetAddress(args []string) error {
	return address(args[0], "", 100*time.Millisecond, func(h *netlink.Handle, l netlink.Link, _ *netlink.Addr) error {
		_, err := h.AddrList(l, unix.AF_INET)
		return err
	})
}
