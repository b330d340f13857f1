package cause

import (
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/oops"
)

// panics is what a kernel is told, so that it panics, and its memory is written, where it would go on. An oops needs the preset
// oops-panic; a report that is not here does not end a kernel, or is of no use in another one.
var panics = map[oops.Kind]string{
	oops.Warning: "panic_on_warn=1", oops.KASAN: "panic_on_warn=1", oops.KFENCE: "panic_on_warn=1", oops.UBSAN: "panic_on_warn=1",
	oops.KCSAN: "panic_on_warn=1", oops.KMSAN: "kmsan.panic=1",
	oops.SoftLockup: "softlockup_panic=1", oops.HardLockup: "nmi_watchdog=panic", oops.HungTask: "hung_task_panic=1",
	oops.RCUStall: "sysctl.kernel.panic_on_rcu_stall=1",
}

// passive are kinds that no dump of a guest explains.
var passive = []oops.Kind{oops.OOM, oops.MachineCheck, oops.Lockdep, oops.AtomicSleep}

// checks are what a kernel can be built with to find the cause of a kind where it begins, as fathom explain config calls it.
var checks = map[oops.Kind]string{
	oops.PageFault: "memory errors", oops.GPF: "memory errors", oops.ListCorruption: "memory errors", oops.KFENCE: "memory errors",
	oops.DoubleFault: "memory errors", oops.StackProtector: "memory errors",
	oops.SoftLockup: "lock order", oops.HardLockup: "lock order", oops.HungTask: "lock order", oops.AtomicSleep: "lock order",
	oops.RCUStall: "lockups",
}

// again names the guest in which it is tried again, and its dump.
const again = "again"

// next gives commands that lead on, in their order: about the module; the same in a guest, whose memory is kept when it dies, and
// what that says; what to build the kernel with; whether the next death here leaves a dump.
func (o *Oops) next(lab func(release string) string) []string {
	var out []string
	guilty, outside := o.Guilty(), o.outside()
	if guilty != "" && !outside {
		out = append(out, "modinfo "+guilty)
	}
	if !slices.Contains(passive, o.Report.Kind) {
		boot := "fathom lab boot --keep " + again
		if lab != nil && o.Release != "" {
			if name := lab(o.Release); name != "" {
				boot += " --kernel " + name
			} else {
				boot += " --kernel /boot/vmlinuz-" + o.Release
			}
		}
		if p, ok := panics[o.Report.Kind]; ok {
			boot += " --append " + p
		} else {
			boot += " --preset oops-panic"
		}
		switch {
		case guilty != "" && outside:
			boot += " --insmod ./" + guilty + ".ko"
		case guilty != "":
			boot += " --load " + guilty
		}
		out = append(out, boot+" --dump-on-panic "+again+".vmcore", "fathom lab exec "+again+" -- sh", "fathom core "+again+".vmcore")
	}
	if c, ok := checks[o.Report.Kind]; ok {
		out = append(out, `fathom explain config "`+c+`"`)
	}
	return append(out, "fathom doctor kdump")
}

// outside says that the guilty module is from outside the kernel's tree, so that its file is where its maker has it. Where the text
// does not list modules, the kernel's taint must do.
func (o *Oops) outside() bool {
	for _, m := range o.Modules {
		if m.Name == o.Guilty() {
			return strings.Contains(m.Flags, "O")
		}
	}
	return strings.Contains(o.Tainted, "O")
}
