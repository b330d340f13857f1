package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Purpose is what people want of a kernel, under the names that they give it, and the needs behind it.
type Purpose struct {
	Names []string // the first is the one to show
	Needs []Need
}

// Purposes are those that fathom knows, for a machine as uname -m says.
func Purposes(machine string) []Purpose {
	dump := dumpNeeds(machine)
	unwinder := dump[len(dump)-1]
	btf := Need{Name: "types", All: []string{"DEBUG_INFO_BTF"}, Why: "structs and arguments are known without debug packages", Menu: "Kernel hacking → Compile-time checks and compiler options → Debug information → Generate BTF type information"}
	symbols := Need{Name: "symbols", All: []string{"KALLSYMS", "KALLSYMS_ALL"}, Why: "functions and data have names", Menu: "General setup → Configure standard kernel features → Load all symbols for debugging/ksymoops"}
	lines := Need{Name: "source lines", Any: []string{"DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT", "DEBUG_INFO_DWARF5", "DEBUG_INFO_DWARF4", "DEBUG_INFO"}, Why: "DWARF says which line an instruction came from", Menu: "Kernel hacking → Compile-time checks and compiler options → Debug information"}
	return []Purpose{
		{[]string{"readable back trace", "backtrace", "stack trace", "oops"}, []Need{unwinder, symbols}},
		{[]string{"kdump", "crash dump", "vmcore", "kexec"}, dump},
		{[]string{"dump by the host", "pvpanic", "virsh dump"}, []Need{
			{Name: "the host learns of a panic", All: []string{"PVPANIC"}, Any: []string{"PVPANIC_PCI", "PVPANIC_MMIO"}, Why: "the guest's kernel tells QEMU, which can write its memory", Menu: "Device Drivers → Misc devices → pvpanic device support"},
			{Name: "the dump says where the kernel is", All: []string{"FW_CFG_SYSFS", "VMCORE_INFO"}, Why: "QEMU gets the VMCOREINFO note; without it fathom core looks for it in memory", Menu: "Firmware Drivers → QEMU fw_cfg device support in sysfs"},
		}},
		{[]string{"dump without debug packages", "core"}, []Need{btf, symbols, unwinder}},
		{[]string{"source lines", "debug symbols", "gdb"}, []Need{lines}},
		{[]string{"tracing", "bpf", "bpftrace", "kprobes"}, []Need{
			btf, symbols,
			{Name: "BPF programs", All: []string{"BPF_SYSCALL", "BPF_JIT", "BPF_EVENTS"}, Why: "programs run at events of the kernel", Menu: "General setup → BPF subsystem"},
			{Name: "functions", All: []string{"KPROBES", "KPROBE_EVENTS", "FUNCTION_TRACER", "DYNAMIC_FTRACE"}, Why: "kprobe, fentry and function graph", Menu: "Kernel hacking → Tracers"},
			{Name: "user programs", All: []string{"UPROBES", "UPROBE_EVENTS"}, Why: "uprobe and USDT", Menu: "Kernel hacking → Tracers → Enable uprobes-based dynamic events"},
		}},
		{[]string{"messages that survive", "pstore", "ramoops", "netconsole"}, []Need{
			{Name: "memory that outlives the kernel", All: []string{"PSTORE"}, Any: []string{"PSTORE_RAM", "EFI_VARS_PSTORE", "ACPI_APEI"}, Why: "fathom explain --pstore reads what it kept", Menu: "File systems → Miscellaneous filesystems → Persistent store support"},
			{Name: "messages by network", All: []string{"NETCONSOLE"}, Why: "fathom explain --netconsole listens to them", Menu: "Device Drivers → Network device support → Network console logging support"},
		}},
		{[]string{"memory errors", "use after free", "kasan"}, []Need{
			{Name: "bad accesses are found", Any: []string{"KASAN", "KFENCE"}, Why: "KASAN finds all of them and is slow; KFENCE samples", Menu: "Kernel hacking → Memory Debugging"},
		}},
		{[]string{"lockups", "hangs", "hung tasks", "watchdog"}, []Need{
			{Name: "CPUs that are stuck", All: []string{"SOFTLOCKUP_DETECTOR", "HARDLOCKUP_DETECTOR"}, Why: "the kernel says where", Menu: "Kernel hacking → Debug Oops, Lockups and Hangs"},
			{Name: "tasks that are stuck", All: []string{"DETECT_HUNG_TASK"}, Why: "the kernel says where", Menu: "Kernel hacking → Debug Oops, Lockups and Hangs → Detect Hung Tasks"},
		}},
		{[]string{"lock order", "deadlocks", "lockdep"}, []Need{
			{Name: "locks are checked", All: []string{"PROVE_LOCKING"}, Why: "an order that can deadlock is told when it is first seen", Menu: "Kernel hacking → Lock Debugging → prove locking correctness"},
		}},
	}
}

// Verdict is what a config says of one need.
type Verdict struct {
	Need     string   `json:"need"`
	Why      string   `json:"why,omitempty"`
	Met      bool     `json:"met"`
	Evidence []string `json:"evidence"`
	Fragment []string `json:"fragment,omitempty"` // lines to add
	Menu     string   `json:"menuconfig,omitempty"`
}

// Answer says what a config has and lacks for a purpose or an option, by any name that people give it; for says what it was
// taken for. An option that the kernel does not have gives the one that was most likely meant. It is an error if what is asked
// for is like nothing known.
func (c Config) Answer(what, machine string) (meant string, out []Verdict, err error) {
	key := strings.ToLower(strings.Trim(what, `" `))
	for _, p := range Purposes(machine) {
		if slices.ContainsFunc(p.Names, func(n string) bool { return n == key || n+"s" == key || n == key+"s" }) {
			for _, n := range p.Needs {
				out = append(out, c.verdict(n))
			}
			return p.Names[0], out, nil
		}
	}
	name := strings.TrimPrefix(strings.ToUpper(key), "CONFIG_")
	if _, known := c.Values[name]; !known {
		if better := c.Suggest(name); better != "" {
			name = better
		} else if n, ok := purposeOption(name, machine); !ok {
			return "", nil, fmt.Errorf("%q is no purpose and no option: purposes are %s", what, strings.Join(purposeNames(machine), ", "))
		} else {
			name = n
		}
	}
	n := Need{Name: "CONFIG_" + name, All: []string{name}}
	for _, p := range Purposes(machine) {
		for _, o := range p.Needs {
			if slices.Contains(o.All, name) || slices.Contains(o.Any, name) {
				n.Why, n.Menu = o.Why, o.Menu
			}
		}
	}
	out = append(out, c.verdict(n))
	if name == "FRAME_POINTER" && c.on("UNWINDER_ORC") {
		out = append(out, c.verdict(Need{Name: "readable back traces", All: []string{"UNWINDER_ORC"}, Why: "ORC tables do what frame pointers did, at no cost when the kernel runs"}))
	}
	return "CONFIG_" + name, out, nil
}

// purposeOption finds an option that a config does not have among those of the purposes, by a name that may be misspelt.
func purposeOption(name, machine string) (string, bool) {
	all := Config{Values: map[string]string{}}
	for _, p := range Purposes(machine) {
		for _, n := range p.Needs {
			for _, o := range slices.Concat(n.All, n.Any) {
				all.Values[o] = "y"
			}
		}
	}
	if all.Values[name] != "" {
		return name, true
	}
	better := all.Suggest(name)
	return better, better != ""
}

func purposeNames(machine string) (out []string) {
	for _, p := range Purposes(machine) {
		out = append(out, p.Names[0])
	}
	return out
}

func (c Config) verdict(n Need) Verdict {
	v := Verdict{Need: n.Name, Why: n.Why, Menu: n.Menu}
	v.Met, v.Evidence = c.met(n)
	for i, e := range v.Evidence {
		v.Evidence[i] = strings.TrimPrefix(e, c.Source+": ")
	}
	if v.Met {
		v.Menu = ""
		return v
	}
	for _, o := range n.All {
		if !c.on(o) {
			v.Fragment = append(v.Fragment, "CONFIG_"+o+"=y")
		}
	}
	if len(n.Any) > 0 && !slices.ContainsFunc(n.Any, c.on) {
		v.Fragment = append(v.Fragment, "CONFIG_"+n.Any[0]+"=y")
	}
	return v
}

// Config is the running kernel's. If there is none, Values is nil and Source says where it was looked for.
func (s *System) Config() Config {
	c := s.readConfig()
	if c.Values == nil {
		c.Source = "no config: " + strings.Join(c.tried, "; ")
	}
	return c
}
