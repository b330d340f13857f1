package cause

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/oops"
)

// TestNext: the module is loaded from where it is, the kernel is the one that died, and it panics of what happened.
func TestNext(t *testing.T) {
	lab := func(release string) string { return map[string]string{"6.1.0-56-amd64": "debian-6.1"}[release] }
	const null = "BUG: kernel NULL pointer dereference, address: 0000000000000018\n#PF: supervisor write access in kernel mode\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"a module from outside, a kernel that the lab has", null + "CPU: 0 PID: 12 Comm: cat Tainted: G           OE      6.1.0-56-amd64 #1  Debian\nRIP: 0010:bad_fn+0x10/0x20 [mod]\nModules linked in: mod(OE) veth\n", []string{
			"fathom lab boot --keep again --kernel debian-6.1 --preset oops-panic --insmod ./mod.ko --dump-on-panic again.vmcore",
			"fathom lab exec again -- sh", "fathom core again.vmcore", "fathom doctor kdump"}},
		{"a module of the kernel, a kernel of another's", null + "CPU: 0 PID: 12 Comm: cat Tainted: G           OE      6.9.1-arch1 #1\nRIP: 0010:bad_fn+0x10/0x20 [veth]\nModules linked in: mod(OE) veth\n", []string{
			"modinfo veth", "fathom lab boot --keep again --kernel /boot/vmlinuz-6.9.1-arch1 --preset oops-panic --load veth --dump-on-panic again.vmcore",
			"fathom lab exec again -- sh", "fathom core again.vmcore", "fathom doctor kdump"}},
		{"what would go on", "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [cat:12]\nCPU: 1 PID: 12 Comm: cat Not tainted 6.1.0-56-amd64 #1\nRIP: 0010:spin+0x10/0x20\n", []string{
			"fathom lab boot --keep again --kernel debian-6.1 --append softlockup_panic=1 --dump-on-panic again.vmcore",
			"fathom lab exec again -- sh", "fathom core again.vmcore", `fathom explain config "lock order"`, "fathom doctor kdump"}},
		{"nobody's fault", "cat invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\nCPU: 1 PID: 12 Comm: cat Not tainted 6.1.0-56-amd64 #1\n", []string{"fathom doctor kdump"}},
	} {
		rs := oops.Parse([]byte(c.text))
		if len(rs) == 0 {
			t.Fatalf("%s: no incident", c.name)
		}
		if diff := cmp.Diff(c.want, Explain(rs[0], lab).Next); diff != "" {
			t.Errorf("%s\n%s", c.name, diff)
		}
	}
}
