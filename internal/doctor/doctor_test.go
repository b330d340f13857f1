package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/probe/try"
)

// guests have memory reserved for a crash kernel, and QEMU's pvpanic device.
var guests = ktest.Config{
	Kernels: ktest.EveryGuest(),
	Modules: []string{"veth", "pvpanic-pci"}, Append: []string{"crashkernel=128M"}, QEMUArgs: []string{"-device", "pvpanic-pci"},
}

func TestMain(m *testing.M) { ktest.Main(m, guests) }

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

const rootCaps, noCaps = "CapEff:\t000001ffffffffff\n", "CapEff:\t0000000000000000\n"

// files are a root folder for tests.
type files map[string]string

func (f files) dir(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range f {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// fake is a machine where everything works but what fails says.
func fake(t *testing.T, f files, fails map[try.Feature]error) *System {
	if f["proc/self/status"] == "" {
		f["proc/self/status"] = rootCaps
	}
	return &System{
		Root: f.dir(t), Release: "6.1.0-x", Machine: "x86_64",
		Try:      func(f try.Feature) error { return fails[f] },
		Free:     func(string) (int64, bool) { return 20 << 30, true },
		Lockdown: func() (string, error) { return "", syscall.ENODEV },
	}
}

func find(t *testing.T, r Report, name string) Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %q in %v", name, r.names(func(Check) bool { return true }))
	}
	return r.Checks[i]
}

func TestEverythingWorks(t *testing.T) {
	s := fake(t, files{"boot/config-6.1.0-x": "CONFIG_KPROBES=y\n", "sys/kernel/security/lockdown": "[none] integrity confidentiality\n"}, nil)
	r := Run(t.Context(), Options{System: s})
	if !r.OK() {
		t.Errorf("missing: %v", r.names(Check.missing))
	}
	if no := r.names(func(c Check) bool { return c.Status == No || c.Status == Denied }); len(no) > 0 {
		t.Error(no)
	}
	if c := find(t, r, "any of the kernel's"); c.Detail != "fathom attaches by fentry, then kprobe.multi, then kprobe, then rawtracepoint, then tracepoint" {
		t.Error(c.Detail)
	}
}

// TestCauses: the same failure has another way out for each cause.
func TestCauses(t *testing.T) {
	eperm := feature.Unsupported("kprobe", "tried it", syscall.EPERM)
	einval := feature.Unsupported("kprobe", "attach", syscall.EINVAL)
	pmu := files{"sys/bus/event_source/devices/kprobe/type": "8\n"}
	with := func(more files) files {
		out := files{}
		for _, f := range []files{pmu, more} {
			for k, v := range f {
				out[k] = v
			}
		}
		return out
	}
	for _, tt := range []struct {
		name   string
		files  files
		err    error
		status Status
		says   string // in evidence or fix
	}{
		{"not privileged", with(files{"proc/self/status": noCaps}), eperm, Denied, "setcap cap_bpf,cap_perfmon+ep"},
		{"not privileged, not built", with(files{"proc/self/status": noCaps, "boot/config-6.1.0-x": "# CONFIG_KPROBES is not set\n"}), eperm, No, "CONFIG_KPROBES=y"},
		{"locked down", with(files{"sys/kernel/security/lockdown": "none integrity [confidentiality]"}), eperm, No, "lockdown=none"},
		{"not built", with(files{"boot/config-6.1.0-x": "# CONFIG_KPROBES is not set\n"}), einval, No, "/boot/config-6.1.0-x: CONFIG_KPROBES is not set"},
		{"unknown", with(files{}), einval, No, "attach: invalid argument (errno 22)"},
		{"wrong words of the library", files{}, errors.New("neither debugfs nor tracefs are mounted"), No, "devices/kprobe does not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := find(t, Run(t.Context(), Options{System: fake(t, tt.files, map[try.Feature]error{try.Kprobe: tt.err})}), "kprobe")
			text := strings.Join(append(c.Evidence, c.Fix...), "\n")
			if c.Status != tt.status || !strings.Contains(text, tt.says) || len(c.Evidence) == 0 || len(c.Fix) == 0 {
				t.Errorf("%s, want %s with %q:\n%s", c.Status, tt.status, tt.says, text)
			}
		})
	}
}

// TestContainer: EPERM with all capabilities and no lockdown is someone else's doing.
func TestContainer(t *testing.T) {
	s := fake(t, files{"sys/kernel/security/lockdown": "[none] integrity"}, map[try.Feature]error{try.AFXDP: syscall.EPERM})
	if c := find(t, Run(t.Context(), Options{System: s}), "af_xdp"); !strings.Contains(strings.Join(c.Fix, ""), "container") {
		t.Error(c)
	}
}

// TestConfined: what a user namespace or a filter on system calls refuses is no sign of lockdown.
func TestConfined(t *testing.T) {
	for what, f := range map[string]files{
		"a user namespace":         {"proc/self/uid_map": "         0       1000          1\n"},
		"a filter on system calls": {"proc/self/uid_map": "         0          0 4294967295\n", "proc/self/status": rootCaps + "Seccomp:\t2\nSeccomp_filters:\t1\n"},
	} {
		r := Run(t.Context(), Options{System: fake(t, f, map[try.Feature]error{try.Kprobe: syscall.EPERM})})
		if c := find(t, r, "lockdown"); c.Status != Info || !strings.Contains(c.Evidence[0], what) {
			t.Errorf("%s: %+v", what, c)
		}
		if c := find(t, r, "capabilities"); strings.Contains(c.Detail, "of a user namespace only") != (what == userNamespace) || what == userNamespace && c.Status != Info {
			t.Errorf("%s: %+v", what, c)
		}
		if c := find(t, r, "kprobe"); !strings.Contains(strings.Join(append(c.Evidence, c.Fix...), ""), what) || !strings.Contains(c.Fix[0], "outside") {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

func TestLockdown(t *testing.T) {
	eperm := map[try.Feature]error{try.Tracefs: syscall.EPERM}
	for _, tt := range []struct {
		name    string
		text    string
		private string
		fails   map[try.Feature]error
		caps    string
		want    string
		status  Status
	}{
		{"off", "[none] integrity confidentiality", "", nil, rootCaps, "none", Yes},
		{"integrity", "none [integrity] confidentiality", "", nil, rootCaps, "integrity", No},
		{"not mounted", "", "none integrity [confidentiality]", nil, rootCaps, "confidentiality", No},
		{"by evidence", "", "", eperm, rootCaps, "integrity or confidentiality", No},
		{"unprivileged EPERM is no evidence", "", "", eperm, noCaps, "", Denied},
		{"no sign", "", "", nil, rootCaps, "", Info},
		{"strange text", "maybe", "", nil, rootCaps, "", Info},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := files{"proc/self/status": tt.caps}
			if tt.text != "" {
				f["sys/kernel/security/lockdown"] = tt.text
			}
			s := fake(t, f, tt.fails)
			if tt.private != "" {
				s.Lockdown = func() (string, error) { return tt.private, nil }
			}
			e := &exam{System: s}
			e.caps, e.capsKnown = s.capabilities()
			e.lockdown = e.findLockdown()
			if e.lockdown.level != tt.want || e.lockdown.evidence == "" {
				t.Errorf("%+v, want %q", e.lockdown, tt.want)
			}
			if c := checkLockdown(e)[0]; c.Status != tt.status {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestRDMA: each RDMA device is named, with what it is on and the state of its ports; where there is none nothing is said.
func TestRDMA(t *testing.T) {
	const at = "sys/class/infiniband/"
	r := Run(t.Context(), Options{System: fake(t, files{
		at + "rxe0/parent": "eth0\n", at + "rxe0/ports/1/state": "4: ACTIVE\n", at + "rxe0/ports/1/link_layer": "Ethernet\n",
		at + "rxe1/parent": "eth1\n", at + "rxe1/ports/1/state": "1: DOWN\n", at + "rxe1/ports/1/link_layer": "Ethernet\n",
	}, nil)})
	if c := find(t, r, "rdma rxe0"); c.Status != Yes || !strings.HasPrefix(c.Detail, "on eth0, ") || c.Evidence[0] != "port 1 is ACTIVE (Ethernet)" {
		t.Errorf("%+v", c)
	}
	if c := find(t, r, "rdma rxe1"); c.Status != Info || c.Evidence[0] != "port 1 is DOWN (Ethernet)" {
		t.Errorf("%+v", c)
	}
	r = Run(t.Context(), Options{System: fake(t, files{}, nil)})
	if n := len(r.names(func(c Check) bool { return strings.HasPrefix(c.Name, "rdma") })); n > 0 {
		t.Errorf("%d RDMA devices of a machine that has none", n)
	}
}

func TestSettings(t *testing.T) {
	s := fake(t, files{"proc/sys/kernel/kptr_restrict": "2\n", "proc/sys/kernel/perf_event_paranoid": "-1\n"}, nil)
	r := Run(t.Context(), Options{System: s})
	if c := find(t, r, "kernel.kptr_restrict"); c.Status != No || c.Evidence[0] != "/proc/sys/kernel/kptr_restrict=2" || c.Fix[0] != "sysctl -w kernel.kptr_restrict=1" {
		t.Errorf("%+v", c)
	}
	if c := find(t, r, "kernel.perf_event_paranoid"); c.Status != Info || c.Detail == "" {
		t.Errorf("%+v", c)
	}
}

// TestNeeded: without BPF the answer is no.
func TestNeeded(t *testing.T) {
	r := Run(t.Context(), Options{System: fake(t, files{}, map[try.Feature]error{bpfSyscall: syscall.ENOSYS})})
	if r.OK() || !slices.Equal(r.names(Check.missing), []string{"bpf(2)"}) {
		t.Error(r.names(Check.missing))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Run(ctx, Options{System: fake(t, files{}, nil)}); r.OK() || !errors.Is(r.Err, context.Canceled) {
		t.Error("a canceled run is fine")
	}
}

// dumper is a machine where a panic leaves a dump.
var dumper = files{
	"proc/cmdline": "ro crashkernel=128M crashkernel=256M quiet\n", "sys/kernel/kexec_crash_size": "268435456\n",
	"sys/kernel/kexec_crash_loaded": "1\n", "proc/sys/kernel/kexec_load_disabled": "0\n",
	"proc/sys/kernel/panic": "0\n", "proc/sys/kernel/panic_on_oops": "1\n", "proc/sys/kernel/sysrq": "438\n",
	"sys/module/kernel/parameters/crash_kexec_post_notifiers": "N\n",
	"sys/bus/pci/drivers/pvpanic-pci/0000:00:05.0":            "",
	"proc/meminfo": "MemTotal:       8000000 kB\nSlab:  100000 kB\nKernelStack: 5000 kB\nHugePages_Total:       0\n",
	"boot/config-6.1.0-x": "CONFIG_KEXEC=y\nCONFIG_CRASH_DUMP=y\nCONFIG_PROC_VMCORE=y\nCONFIG_RELOCATABLE=y\nCONFIG_SYSFS=y\n" +
		"CONFIG_DEBUG_INFO_BTF=y\nCONFIG_UNWINDER_ORC=y\n# CONFIG_FRAME_POINTER is not set\nCONFIG_PVPANIC=y\n",
}

func TestKdump(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change files // "" removes
		check  string
		status Status
		says   string
		ok     bool
	}{
		{"all there", nil, "memory reserved", Yes, "256 MiB", true},
		{"no parameter", files{"proc/cmdline": "quiet\n", "sys/kernel/kexec_crash_size": "0\n"}, "memory reserved", No, "crashkernel=256M to GRUB_CMDLINE", false},
		{"too much asked", files{"sys/kernel/kexec_crash_size": "0\n"}, "memory reserved", No, "reserved nothing", false},
		{"not loaded", files{"sys/kernel/kexec_crash_loaded": "0\n"}, "kernel loaded", No, "kdump-config load", false},
		{"kexec off", files{"proc/sys/kernel/kexec_load_disabled": "1\n"}, "kexec allowed", No, "cannot be cleared", false},
		{"locked down", files{"sys/kernel/security/lockdown": "none [integrity]"}, "kexec allowed", Yes, "signed kernels only", true},
		{"no ORC, no frame pointers", files{"boot/config-6.1.0-x": "# CONFIG_UNWINDER_ORC is not set\nCONFIG_FRAME_POINTER=n\n"}, "readable back traces", No, "CONFIG_UNWINDER_ORC=y", false},
		{"oops", files{"proc/sys/kernel/panic_on_oops": "0\n"}, "kernel.panic_on_oops", No, "panic_on_oops=1", true},
		{"panic waits", nil, "kernel.panic", Info, "waits forever", true},
		{"order", files{"sys/module/kernel/parameters/crash_kexec_post_notifiers": "Y\n"}, "order", Info, "notifiers run first", true},
		{"no pvpanic", files{"sys/bus/pci/drivers/pvpanic-pci/0000:00:05.0": "-"}, "pvpanic", No, "-device pvpanic-pci", true},
		{"pvpanic without driver", files{"sys/bus/pci/drivers/pvpanic-pci/0000:00:05.0": "-", "sys/bus/pci/devices/0000:00:05.0/vendor": "0x1b36\n", "sys/bus/pci/devices/0000:00:05.0/device": "0x0011\n"}, "pvpanic", No, "0000:00:05.0 has no driver", true},
		{"bare metal", files{"proc/cpuinfo": "flags : fpu\n"}, "pvpanic", Info, "this is none", true},
		{"room", nil, "room in /var/crash", Yes, "for all memory", true},
		{"some room", files{"proc/meminfo": "MemTotal: 80000000 kB\nSlab: 100000 kB\n"}, "room in /var/crash", Yes, "kernel's own memory", true},
		{"no room", files{"proc/meminfo": "MemTotal: 80000000 kB\nSlab: 50000000 kB\n"}, "room in /var/crash", No, "free 27 GiB there", false},
		{"another folder", files{"etc/default/kdump-tools": "# x\nKDUMP_COREDIR=\"/data/crash\"\n"}, "room in /data/crash", Yes, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := files{}
			for _, m := range []files{dumper, tt.change} {
				for k, v := range m {
					if f[k] = v; v == "-" {
						delete(f, k)
					}
				}
			}
			r := Run(t.Context(), Options{System: fake(t, f, nil), Kdump: true})
			c := find(t, r, tt.check)
			text := strings.Join(append(append(c.Evidence, c.Fix...), c.Detail), "\n")
			if c.Status != tt.status || !strings.Contains(text, tt.says) {
				t.Errorf("%s, want %s with %q:\n%s", c.Status, tt.status, tt.says, text)
			}
			if r.OK() != tt.ok {
				t.Errorf("OK is %v; missing %v", r.OK(), r.names(Check.missing))
			}
		})
	}
}

func TestConfig(t *testing.T) {
	text := "# CONFIG_KPROBES is not set\nCONFIG_BTF=y\nCONFIG_X=m\nCONFIG_HZ=250\nCONFIG_LSM=\"a,b\"\n# a comment\nCONFIG_RELOCATABLE=y\nCONFIG_FRAME_POINTER=y\n"
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte(text))
	w.Close()
	want := map[string]string{"KPROBES": "n", "BTF": "y", "X": "m", "HZ": "250", "LSM": "a,b", "RELOCATABLE": "y", "FRAME_POINTER": "y"}
	for name, b := range map[string][]byte{"plain": []byte(text), "gzip": z.Bytes()} {
		got, err := ParseConfig(b)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	for _, bad := range []string{"", "hello", "\x1f\x8b", z.String()[:20]} {
		if got, err := ParseConfig([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
	c := Config{Values: want, Source: "/proc/config.gz"}
	for name, want := range map[string]string{
		"CONFIG_RELOCATBLE": "RELOCATABLE", "FRAME_POINTERS": "FRAME_POINTER", "relocatable": "", "NOTHINGLIKEIT": "",
	} {
		if got := c.Suggest(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := c.off([]string{"KPROBES", "BTF", "KPROBE_EVENTS", "UNHEARD_OF"}); !slices.Equal(got, []string{"KPROBES", "KPROBE_EVENTS"}) {
		t.Error(got)
	}
	if got := c.evidence("KPROBE_EVENTS"); got != "/proc/config.gz: CONFIG_KPROBE_EVENTS depends on CONFIG_KPROBES, which is off" {
		t.Error(got)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("CONFIG_A=y\n# CONFIG_B is not set\n"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := ParseConfig(b); err == nil && len(v) == 0 {
			t.Error("neither options nor an error")
		}
	})
}

func TestErrnoText(t *testing.T) {
	long := errors.New(strings.Repeat("verifier says: ", 30) + "the cause")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, "open /x: no such file or directory (errno 2)"},
		{errors.New("map create: operation not permitted (MEMLOCK may be too low, consider rlimit.RemoveMemlock)"), "map create: operation not permitted"},
		{errors.New("bpf_link_kprobe_multi not supported (requires >= v5.18)"), "bpf_link_kprobe_multi not supported"},
		{errors.New("a\n\tb"), "a b"},
	} {
		if got := errnoText(tt.err); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	if got := errnoText(long); len(got) > maxEvidence+4 || !strings.HasPrefix(got, "…") || !strings.HasSuffix(got, ": the cause") {
		t.Errorf("%q", got)
	}
}

var sample = Report{Topic: "doctor", Release: "6.1.0", Machine: "x86_64", UID: 1000, Checks: []Check{
	{Group: "settings", Name: "kernel.x", Status: Info, Detail: "fine", Evidence: []string{"/proc/sys/kernel/x=1"}},
	{Group: "probes", Name: "kprobe", Status: No, Detail: "functions", Evidence: []string{"CONFIG_KPROBES is not set"}, Fix: []string{"another kernel"}, Instead: "tracepoints"},
	{Group: "probes", Name: "uprobe", Status: Yes, Detail: "programs"},
	{Group: "ftrace", Name: "tracefs", Status: Denied, Needed: true, Evidence: []string{"EPERM"}, Fix: []string{"sudo x"}},
}}

func TestText(t *testing.T) {
	want := `fathom doctor · Linux 6.1.0 x86_64 · uid 1000

settings
  · kernel.x  1 · fine

probes
  ✗ kprobe    functions
      because: CONFIG_KPROBES is not set
      try: another kernel
      instead: tracepoints
  ✓ uprobe    programs

ftrace
  ? tracefs   needed
      because: EPERM
      try: sudo x

1 work, 1 do not; sudo fathom doctor tells of 1 more: tracefs
missing and needed: tracefs
`
	var b strings.Builder
	if err := sample.Text(&b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	if err := sample.Styled(&b, Style{ASCII: true, Quiet: true}); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.String() {
		if r > 127 {
			t.Fatalf("%q in ASCII:\n%s", r, b.String())
		}
	}
	if strings.Contains(b.String(), "uprobe") {
		t.Error("what works is in a quiet report")
	}
	b.Reset()
	if sample.Styled(&b, Style{Color: true}); !strings.Contains(b.String(), "\x1b[31m✗\x1b[0m kprobe") {
		t.Error(b.String())
	}
}

func TestJSON(t *testing.T) {
	want := `{"type":"check","group":"settings","name":"kernel.x","status":"info","detail":"fine","evidence":["/proc/sys/kernel/x=1"]}
{"type":"check","group":"probes","name":"kprobe","status":"no","detail":"functions","evidence":["CONFIG_KPROBES is not set"],"fix":["another kernel"],"instead":"tracepoints"}
{"type":"check","group":"probes","name":"uprobe","status":"yes","detail":"programs"}
{"type":"check","group":"ftrace","name":"tracefs","status":"denied","needed":true,"evidence":["EPERM"],"fix":["sudo x"]}
{"type":"summary","topic":"doctor","release":"6.1.0","machine":"x86_64","uid":1000,"ok":false,"yes":1,"no":1,"denied":1,"missing":["tracefs"]}
`
	var b strings.Builder
	if err := sample.JSON(&b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

// TestHere runs on the machine at hand, with whatever privilege there is. The leak check of TestMain looks at the rest.
func TestHere(t *testing.T) {
	for _, kdump := range []bool{false, true} {
		r := Run(t.Context(), Options{Kdump: kdump})
		if r.Err != nil || len(r.Checks) < 10 || r.Release == "" {
			t.Errorf("%+v", r)
		}
		for _, c := range r.Checks {
			if (c.Status == No || c.Status == Denied) && (len(c.Evidence) == 0 || len(c.Fix) == 0 || c.Evidence[0] == "") {
				t.Errorf("no evidence or no way out: %+v", c)
			}
		}
		var b bytes.Buffer
		if err := r.JSON(&b); err != nil {
			t.Fatal(err)
		}
		for dec := json.NewDecoder(&b); dec.More(); {
			var v map[string]any
			if err := dec.Decode(&v); err != nil || v["type"] == nil {
				t.Fatal(v, err)
			}
		}
	}
}

// TestKernels: in a guest, what its kernel must have is found.
func TestKernels(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF)
	r := Run(t.Context(), Options{})
	if !r.OK() {
		t.Error("missing:", r.names(Check.missing))
	}
	for _, k := range ktest.Kernels {
		for _, c := range r.Checks {
			if k.Name == ktest.Where() && c.Status != Yes && slices.Contains(k.Must, ktest.Feature(c.Name)) {
				t.Errorf("%+v", c)
			}
		}
	}
	var b strings.Builder
	if err := r.Text(&b); err != nil {
		t.Error(err)
	}
	t.Log(b.String())
}

// TestGuestKdump: what a guest has of what a dump takes is found, and what it lacks.
func TestGuestKdump(t *testing.T) {
	ktest.NeedGuest(t)
	r := Run(t.Context(), Options{Kdump: true})
	for name, want := range map[string]Status{"memory reserved": Yes, "kernel loaded": No, "kexec allowed": Yes, "pvpanic": Yes} {
		if c := find(t, r, name); c.Status != want {
			t.Errorf("want %s: %+v", want, c)
		}
	}
}
