package doctor

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

// kdumpSteps are the checks of `fathom doctor kdump`, in the order in which a dump comes about: memory is reserved, a
// kernel loaded into it, a panic happens, the host may be told, the dump is written, and someone wants to read it.
func kdumpSteps() []step {
	return []step{checkReserved, checkLoaded, checkKexecAllowed, checkPanicSettings, checkPvpanic, checkRoom, checkDumpConfig, configFile("kernel build")}
}

// checkReserved looks for memory set aside at boot.
func checkReserved(e *exam) []Check {
	c := Check{Group: "crash kernel", Name: "memory reserved", Needed: true, Status: No}
	cmdline, err := e.read("/proc/cmdline")
	if err != nil {
		c.Evidence = append(c.Evidence, "/proc/cmdline: "+reason(err))
	}
	param := parameter(cmdline, "crashkernel")
	if param == "" {
		c.Evidence = append(c.Evidence, "/proc/cmdline has no crashkernel=")
	} else {
		c.Evidence = append(c.Evidence, "/proc/cmdline has crashkernel="+param)
	}
	v, evidence, ok := e.value("/sys/kernel/kexec_crash_size")
	c.Evidence = append(c.Evidence, evidence)
	size, _ := strconv.ParseInt(v, 10, 64)
	switch {
	case ok && size > 0:
		c.Status, c.Detail = Yes, bytesText(size)
	case !ok && e.noCrashDump():
		c.Fix = []string{crashKernel}
	case param != "":
		c.Fix = []string{"the kernel reserved nothing: see dmesg | grep -i crashkernel; ask for less, or with ,high: crashkernel=512M,high"}
	default:
		c.Fix = []string{
			"apt install kdump-tools (sets crashkernel=, loads the crash kernel at boot), then reboot",
			fmt.Sprintf("add crashkernel=%s to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub; update-grub; reboot", e.wantReserved()),
		}
	}
	return []Check{c}
}

// crashKernel is the way out where the kernel cannot start another.
const crashKernel = "a kernel with CONFIG_CRASH_DUMP=y CONFIG_KEXEC_FILE=y, such as the distribution's own"

// noCrashDump reports that this kernel was certainly built without crash dumps.
func (e *exam) noCrashDump() bool { return e.config.Values != nil && !e.config.on("CRASH_DUMP") }

// parameter gives the last value of a kernel parameter: a later one wins.
func parameter(cmdline, name string) (v string) {
	for _, f := range strings.Fields(cmdline) {
		if s, ok := strings.CutPrefix(f, name+"="); ok {
			v = s
		}
	}
	return v
}

// wantReserved is what distributions reserve by the machine's memory.
func (e *exam) wantReserved() string {
	total := e.meminfo()["MemTotal"]
	switch {
	case total < 4<<30:
		return "192M"
	case total < 64<<30:
		return "256M"
	}
	return "512M"
}

// checkLoaded looks for a kernel in the reserved memory.
func checkLoaded(e *exam) []Check {
	c := Check{Group: "crash kernel", Name: "kernel loaded", Needed: true, Status: Yes, Detail: "it starts on a panic"}
	v, evidence, ok := e.value("/sys/kernel/kexec_crash_loaded")
	c.Evidence = []string{evidence}
	if ok && v == "1" {
		return []Check{c}
	}
	c.Status, c.Detail = No, ""
	if !ok {
		c.Fix = []string{crashKernel}
		return []Check{c}
	}
	c.Fix = []string{
		"kdump-config load, as root (package kdump-tools)",
		fmt.Sprintf("kexec -s -p /boot/vmlinuz-%s --initrd=/boot/initrd.img-%s --reuse-cmdline --append='nr_cpus=1 reset_devices'", e.Release, e.Release),
	}
	return []Check{c}
}

// checkKexecAllowed looks for what forbids loading a kernel.
func checkKexecAllowed(e *exam) []Check {
	c := Check{Group: "crash kernel", Name: "kexec allowed", Needed: true, Status: Yes}
	v, evidence, ok := e.value("/proc/sys/kernel/kexec_load_disabled")
	c.Evidence = []string{evidence}
	switch {
	case !ok:
		c.Status = No
		c.Fix = []string{crashKernel}
	case v == "1":
		c.Status = No
		c.Fix = []string{"find who sets kernel.kexec_load_disabled=1 (grep -r kexec_load_disabled /etc/sysctl.d), then reboot: it cannot be cleared"}
	case e.lockdown.on():
		c.Detail = "signed kernels only, by kexec -s: lockdown is " + e.lockdown.level
		c.Evidence = append(c.Evidence, e.lockdown.evidence)
	}
	return []Check{c}
}

// panicSetting is a sysctl that decides what a panic is and what follows it.
type panicSetting struct {
	name string
	says func(v string) (Status, string)
	fix  string
}

func onOff(off, on string) func(string) (Status, string) {
	return func(v string) (Status, string) {
		if v == "0" {
			return Info, off
		}
		return Info, on
	}
}

var panicSettings = []panicSetting{
	{"panic", func(v string) (Status, string) {
		switch n, _ := strconv.Atoi(v); {
		case n == 0:
			return Info, "without a crash kernel the machine stays as it is, for a debugger or the host (panic=0 waits forever)"
		case n < 0:
			return Info, "without a crash kernel the machine reboots at once"
		default:
			return Info, fmt.Sprintf("without a crash kernel the machine reboots after %d s", n)
		}
	}, ""},
	{"panic_on_oops", func(v string) (Status, string) {
		if v == "0" {
			return No, "an oops kills only its task and leaves no dump"
		}
		return Yes, "an oops is a panic and leaves a dump"
	}, "sysctl -w kernel.panic_on_oops=1 (and in /etc/sysctl.d, to last)"},
	{"panic_on_warn", onOff("a warning is only printed", "a warning is a panic: for test machines only"), ""},
	{"panic_on_rcu_stall", onOff("an RCU stall is only printed", "an RCU stall is a panic"), ""},
	{"softlockup_panic", onOff("a CPU stuck in the kernel for 20 s is only printed", "a CPU stuck in the kernel is a panic"), ""},
	{"hardlockup_panic", onOff("a CPU stuck with interrupts off is only printed", "a CPU stuck with interrupts off is a panic"), ""},
	{"hung_task_panic", onOff("a task that hangs is only printed", "a task that hangs is a panic"), ""},
	{"unknown_nmi_panic", onOff("an NMI from outside (ipmitool power diag, virsh inject-nmi) is only printed", "an NMI from outside is a panic: a dump on demand"), ""},
	{"sysrq", func(v string) (Status, string) {
		// Bit 3 allows dumps of processes and the crash; root may always write /proc/sysrq-trigger.
		if n, _ := strconv.Atoi(v); n == 1 || n&8 != 0 {
			return Info, "Alt-SysRq-C panics; so does echo c > /proc/sysrq-trigger"
		}
		return Info, "Alt-SysRq-C is off; echo c > /proc/sysrq-trigger panics, for root"
	}, ""},
}

func checkPanicSettings(e *exam) []Check {
	var out []Check
	for _, p := range panicSettings {
		v, evidence, ok := e.value("/proc/sys/kernel/" + p.name)
		if !ok {
			continue
		}
		c := Check{Group: "panic", Name: "kernel." + p.name, Evidence: []string{evidence}}
		if c.Status, c.Detail = p.says(v); c.Status == No {
			c.Fix = []string{p.fix}
		}
		out = append(out, c)
	}
	return append(out, e.notifiers())
}

// notifiers tells who comes first on a panic: the crash kernel, or the notifiers, pvpanic among them.
func (e *exam) notifiers() Check {
	v, evidence, ok := e.value("/sys/module/kernel/parameters/crash_kexec_post_notifiers")
	c := Check{Group: "panic", Name: "order", Status: Info, Evidence: []string{evidence}, Detail: "the crash kernel starts first: the host's pvpanic hears nothing"}
	switch {
	case !ok || !e.exists("/sys/kernel/kexec_crash_loaded"):
		c.Detail = "no crash kernel: the host's pvpanic, if there is one, hears of every panic"
	case v == "Y" || v == "1":
		c.Detail = "notifiers run first (pvpanic, consoles), then the crash kernel"
	}
	return c
}

// checkPvpanic looks for the device by which a guest tells its host of a panic: PCI 1b36:0011, or ACPI QEMU0001
// (docs/specs/pvpanic.rst of QEMU).
func checkPvpanic(e *exam) []Check {
	c := Check{Group: "panic", Name: "pvpanic", Status: No, Detail: "tells the host of a panic, which can then take the dump"}
	if cpu, err := e.read("/proc/cpuinfo"); err == nil && !strings.Contains(cpu, "hypervisor") && e.Machine == "x86_64" {
		c.Status, c.Detail, c.Evidence = Info, "for virtual machines; this is none", []string{"/proc/cpuinfo: no flag hypervisor"}
		return []Check{c}
	}
	device := e.pvpanicDevice()
	var driver []string
	for _, p := range []string{"/sys/bus/pci/drivers/pvpanic-pci/0*", "/sys/bus/platform/drivers/pvpanic-mmio/QEMU*", "/sys/bus/platform/drivers/pvpanic-mmio/*pvpanic*"} {
		driver = append(driver, e.glob(p)...)
	}
	switch {
	case len(driver) > 0:
		c.Status, c.Evidence = Yes, []string{driver[0]}
	case device != "":
		c.Evidence = []string{device + " has no driver"}
		c.Fix = []string{"modprobe pvpanic-pci || modprobe pvpanic-mmio"}
		if off := e.config.off([]string{"PVPANIC"}); len(off) > 0 {
			c.Evidence = append(c.Evidence, e.config.evidence("PVPANIC"))
			c.Fix = []string{"a kernel with CONFIG_PVPANIC=y CONFIG_PVPANIC_PCI=m CONFIG_PVPANIC_MMIO=m"}
		}
	default:
		c.Evidence = []string{"no PCI device 1b36:0011, no ACPI device QEMU0001"}
		c.Fix = []string{"on the host: qemu-system-x86_64 -device pvpanic-pci (libvirt: <panic model='isa'/>)"}
		c.Instead = "a dump inside this machine does not need it"
	}
	return []Check{c}
}

func (e *exam) pvpanicDevice() string {
	for _, dev := range e.glob("/sys/bus/pci/devices/*") {
		vendor, _ := e.read(dev + "/vendor")
		device, _ := e.read(dev + "/device")
		if vendor == "0x1b36" && device == "0x0011" {
			return "PCI device " + base(dev)
		}
	}
	if acpi := e.glob("/sys/bus/acpi/devices/QEMU0001:*"); len(acpi) > 0 {
		return "ACPI device " + base(acpi[0])
	}
	return ""
}

// meminfo gives /proc/meminfo in bytes.
func (e *exam) meminfo() map[string]int64 {
	out := map[string]int64{}
	text, _ := e.read("/proc/meminfo")
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		name, v, _ := strings.Cut(sc.Text(), ":")
		if n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64); err == nil {
			out[name] = n << 10
		}
	}
	return out
}

// dumpDir is where dumps go: kdump-tools' KDUMP_COREDIR, kdump.conf's path, or /var/crash.
func (e *exam) dumpDir() string {
	for _, f := range []struct{ name, key string }{{"/etc/default/kdump-tools", "KDUMP_COREDIR="}, {"/etc/kdump.conf", "path "}} {
		text, _ := e.read(f.name)
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), f.key); ok {
				return strings.Trim(strings.TrimSpace(v), `"'`)
			}
		}
	}
	return "/var/crash"
}

// checkRoom compares the room for dumps with what one takes. makedumpfile -d 31 leaves free pages, page cache and user
// memory out; what stays is the kernel's own, compressed to a third or so. Without that a dump is all memory.
func checkRoom(e *exam) []Check {
	dir := e.dumpDir()
	c := Check{Group: "dump", Name: "room in " + dir, Needed: true, Status: No}
	have, ok := e.Free(dir)
	m := e.meminfo()
	kernel := m["Slab"] + m["KernelStack"] + m["PageTables"] + m["SecPageTables"] + m["Percpu"] + m["VmallocUsed"]
	c.Evidence = []string{
		fmt.Sprintf("statfs %s: %s free", dir, bytesText(have)),
		fmt.Sprintf("/proc/meminfo: %s in all, %s the kernel's own", bytesText(m["MemTotal"]), bytesText(kernel)),
	}
	switch {
	case !ok || m["MemTotal"] == 0:
		c.Evidence = c.Evidence[1:]
		c.Fix = []string{"mkdir -p " + dir}
	case have >= m["MemTotal"]:
		c.Status, c.Detail = Yes, "for all memory"
	case have >= kernel:
		c.Status, c.Detail = Yes, "for the kernel's own memory (makedumpfile -d 31), not for a whole dump"
	default:
		c.Fix = []string{"free " + bytesText(kernel-have) + " there", "set KDUMP_COREDIR in /etc/default/kdump-tools to a larger disk", "send dumps to another machine: SSH= or NFS= in /etc/default/kdump-tools"}
	}
	return []Check{c}
}

// checkDumpConfig checks what the kernel was built with against needs, not option names.
func checkDumpConfig(e *exam) []Check {
	if e.config.Values == nil {
		return nil // configFile says so
	}
	var out []Check
	for _, n := range dumpNeeds(e.Machine) {
		ok, evidence := e.config.met(n)
		c := Check{Group: "kernel build", Name: n.Name, Needed: true, Status: Yes, Detail: n.Why, Evidence: evidence}
		if !ok {
			c.Status, c.Fix = No, []string{n.fragment()}
		}
		out = append(out, c)
	}
	return out
}

// bytesText gives a size in the unit people say.
func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
