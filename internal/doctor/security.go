package doctor

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/probe/try"
)

// lockdown is what kernel_lockdown(7) forbids to everyone, root included.
type lockdown struct {
	level    string // none, integrity, confidentiality; "" if unknown
	evidence string
	implied  bool // concluded from refusals, not read
}

func (l lockdown) on() bool { return l.level != "" && l.level != "none" }

// fix is the way out of something refused with EPERM under lockdown. The kernel's own integrity level forbids no reading;
// where it does, a changed kernel or a security module adds to it.
func (l lockdown) fix() []string {
	out := []string{"boot with lockdown=none (if Secure Boot turns it on: without Secure Boot; dmesg | grep -i lock tells)"}
	if l.level == "integrity" {
		out = append(out, "if that does not help, a security module refuses it: cat /sys/kernel/security/lsm")
	}
	return out
}

// lockdownFile has the levels with the active one in brackets.
const lockdownFile = "/sys/kernel/security/lockdown"

// findLockdown reads the file, mounted or not, or else concludes from refusals.
func (e *exam) findLockdown() lockdown {
	text, err := e.read(lockdownFile)
	evidence := lockdownFile + "=" + text
	if err != nil && e.Lockdown != nil {
		var mountErr error
		text, mountErr = e.Lockdown()
		if mountErr == nil {
			err, evidence = nil, "lockdown in securityfs (mounted privately)="+text
		}
	}
	if err == nil {
		if _, rest, ok := strings.Cut(text, "["); ok {
			level, _, _ := strings.Cut(rest, "]")
			return lockdown{level: level, evidence: evidence}
		}
	}
	return e.inferLockdown(lockdownFile + ": " + reasonOr(err, text))
}

func reasonOr(err error, text string) string {
	if err != nil {
		return reason(err)
	}
	return "no level in " + strconv.Quote(text)
}

// inferLockdown concludes from EPERM that a process with all capabilities got.
func (e *exam) inferLockdown(why string) lockdown {
	if !e.privileged() {
		return lockdown{evidence: why}
	}
	if by := e.confined(); by != "" {
		return lockdown{evidence: why + "; what is refused tells nothing in " + by}
	}
	for _, f := range []try.Feature{try.Kprobe, try.Tracepoint, try.Tracefs, try.Profile} {
		if err := e.Try(f); err != nil && denied(err) {
			return lockdown{level: "integrity or confidentiality", implied: true, evidence: fmt.Sprintf("%s is refused to CAP_SYS_ADMIN: %s", f, tried(err))}
		}
	}
	return lockdown{evidence: why}
}

func checkLockdown(e *exam) []Check {
	l := e.lockdown
	c := Check{Group: "security", Name: "lockdown", Evidence: []string{l.evidence}}
	switch {
	case l.level == "" && !e.privileged():
		c.Status, c.Detail, c.Fix = Denied, "unknown", []string{"sudo fathom doctor"}
	case l.level == "":
		c.Status, c.Detail = Info, "no sign of it"
	case !l.on():
		c.Status, c.Detail = Yes, "off"
	default:
		c.Status, c.Detail = No, lockdownMeans(l)
		c.Fix = l.fix()[:1]
	}
	return []Check{c}
}

func lockdownMeans(l lockdown) string {
	switch {
	case l.implied:
		return l.level + ", by what is refused"
	case l.level == "confidentiality":
		return l.level + ": kernel memory cannot be read: no kprobes, no tracefs, no perf, no BPF reads"
	}
	return l.level + ": nothing may change the kernel: no unsigned modules, no kexec of unsigned kernels, no writes by BPF"
}

// capability is one that fathom can use, and for what.
type capability struct {
	number int
	name   string
	use    string
}

var capabilities = []capability{
	{unix.CAP_BPF, "cap_bpf", "load programs"},
	{unix.CAP_PERFMON, "cap_perfmon", "attach to the kernel"},
	{unix.CAP_SYS_ADMIN, "cap_sys_admin", "everything, tracefs instances and namespaces included"},
	{unix.CAP_NET_ADMIN, "cap_net_admin", "XDP, links, addresses"},
	{unix.CAP_NET_RAW, "cap_net_raw", "AF_XDP and packet sockets"},
	{unix.CAP_SYS_PTRACE, "cap_sys_ptrace", "user stacks of other people's processes"},
	{unix.CAP_DAC_READ_SEARCH, "cap_dac_read_search", "read tracefs"},
	{unix.CAP_SYSLOG, "cap_syslog", "kernel addresses"},
	{unix.CAP_SYS_RESOURCE, "cap_sys_resource", "memory limits (kernels before 5.11), rings beyond perf_event_mlock_kb"},
}

func bit(n int) uint64 { return 1 << n }

// capabilities gives this process's effective set.
func (s *System) capabilities() (set uint64, ok bool) {
	text, err := s.read("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(text) {
		if v, found := strings.CutPrefix(line, "CapEff:"); found {
			set, err = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return set, err == nil
		}
	}
	return 0, false
}

// everybody is the map of user IDs outside of user namespaces.
const everybody = "0 0 4294967295"

// userNamespace is one reason of confined.
const userNamespace = "a user namespace"

// confined names what refuses things to this process that root may do: a user namespace, whose capabilities are not the kernel's own
// (user_namespaces(7)), or a filter on system calls (seccomp(2)), as containers have; "" if nothing shows.
func (s *System) confined() string {
	if text, err := s.read("/proc/self/uid_map"); err == nil && strings.Join(strings.Fields(text), " ") != everybody {
		return userNamespace + " (/proc/self/uid_map=" + strings.Join(strings.Fields(text), " ") + ")"
	}
	if text, err := s.read("/proc/self/status"); err == nil && strings.Contains(text, "\nSeccomp:\t2\n") {
		return "a filter on system calls (/proc/self/status Seccomp=2)"
	}
	return ""
}

func checkCapabilities(e *exam) []Check {
	c := Check{Group: "security", Name: "capabilities", Status: Yes}
	if !e.capsKnown {
		c.Status, c.Evidence = Info, []string{"/proc/self/status has no CapEff"}
		return []Check{c}
	}
	var have, lack []string
	for _, k := range capabilities {
		if e.caps&bit(k.number) != 0 {
			have = append(have, k.name)
		} else {
			lack = append(lack, k.name+" ("+k.use+")")
		}
	}
	c.Evidence = []string{fmt.Sprintf("/proc/self/status CapEff=%016x, uid %d", e.caps, e.UID)}
	c.Detail = "has " + strings.Join(have, ", ")
	if len(have) == 0 {
		c.Detail = "has none of those that tracing uses"
	}
	if by := e.confined(); strings.HasPrefix(by, userNamespace) && len(have) > 0 {
		c.Status, c.Detail, c.Evidence = Info, c.Detail+", but of a user namespace only: over the kernel they give no power", append(c.Evidence, by)
	}
	if len(lack) == 0 {
		return []Check{c}
	}
	c.Detail += "; lacks " + strings.Join(lack, ", ")
	if enough := bit(unix.CAP_BPF) | bit(unix.CAP_PERFMON); e.privileged() || e.caps&enough == enough {
		c.Status = Info
		return []Check{c}
	}
	c.Status = Denied
	c.Fix = []string{"sudo fathom doctor", "sudo setcap " + fileCaps + "+ep $(command -v fathom)"}
	return []Check{c}
}
