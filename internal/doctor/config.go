package doctor

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Config is a kernel's build options.
type Config struct {
	Source string            // the file they come from
	Values map[string]string // without CONFIG_: "y", "m", "n" for "is not set", or a number or string; nil if unknown
	tried  []string          // files that could not be read, if none could
}

// maxConfig bounds a decompressed config; they have 100 to 300 kB.
const maxConfig = 8 << 20

// ParseConfig reads the text of a .config, plain or gzip.
func ParseConfig(b []byte) (map[string]string, error) {
	if bytes.HasPrefix(b, []byte("\x1f\x8b")) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if b, err = io.ReadAll(io.LimitReader(z, maxConfig)); err != nil {
			return nil, err
		}
	}
	values := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutSuffix(strings.TrimPrefix(line, "# CONFIG_"), " is not set"); ok && strings.HasPrefix(line, "# CONFIG_") {
			values[name] = "n"
		} else if name, v, ok := strings.Cut(line, "="); ok && strings.HasPrefix(name, "CONFIG_") {
			values[strings.TrimPrefix(name, "CONFIG_")] = strings.Trim(v, `"`)
		}
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("no CONFIG_ line in %d bytes", len(b))
	}
	return values, nil
}

// readConfig finds the running kernel's options where kernels and distributions put them.
func (s *System) readConfig() Config {
	var c Config
	for _, name := range []string{
		"/proc/config.gz", "/boot/config-" + s.Release, "/lib/modules/" + s.Release + "/config",
		"/lib/modules/" + s.Release + "/build/.config", "/usr/lib/modules/" + s.Release + "/config",
	} {
		text, err := s.read(name)
		if err == nil {
			if c.Values, err = ParseConfig([]byte(text)); err == nil {
				return Config{Source: name, Values: c.Values}
			}
		}
		c.tried = append(c.tried, name+": "+reason(err))
	}
	c.tried = c.tried[:2] // the usual places
	return c
}

// on reports whether an option is built in or a module.
func (c Config) on(name string) bool { return c.Values[name] == "y" || c.Values[name] == "m" }

// off lists those of the options that are known to be off. Of an option that does not appear at all nothing is known:
// its kernel may have another name for it.
func (c Config) off(names []string) (out []string) {
	for _, n := range names {
		if c.Values[n] == "n" || c.Values != nil && c.Values[n] == "" && c.dependsOff(n) {
			out = append(out, n)
		}
	}
	return out
}

// parents are options without which an option does not appear in a config at all.
var parents = map[string][]string{
	"FPROBE": {"FUNCTION_TRACER", "FTRACE"}, "HIST_TRIGGERS": {"FTRACE", "EVENT_TRACING"}, "KPROBE_EVENTS": {"KPROBES", "FTRACE"},
	"FUNCTION_GRAPH_TRACER": {"FUNCTION_TRACER", "FTRACE"}, "DYNAMIC_FTRACE_WITH_DIRECT_CALLS": {"DYNAMIC_FTRACE", "FUNCTION_TRACER", "FTRACE"},
	"UPROBE_EVENTS": {"FTRACE"}, "PROC_VMCORE": {"CRASH_DUMP"}, "DEBUG_INFO_BTF_MODULES": {"DEBUG_INFO_BTF", "MODULES"}, "KPROBES": {"MODULES"},
}

func (c Config) dependsOff(name string) bool {
	return slices.ContainsFunc(parents[name], func(p string) bool { return !c.on(p) })
}

// evidence says what the config has for an option.
func (c Config) evidence(name string) string {
	switch v := c.Values[name]; v {
	case "n":
		return c.Source + ": CONFIG_" + name + " is not set"
	case "":
		for _, p := range parents[name] {
			if !c.on(p) {
				return fmt.Sprintf("%s: CONFIG_%s depends on CONFIG_%s, which is off", c.Source, name, p)
			}
		}
		return c.Source + ": no CONFIG_" + name
	default:
		return c.Source + ": CONFIG_" + name + "=" + v
	}
}

// Suggest gives the option that a misspelt name most likely means, among those the kernel knows: RELOCATBLE is
// RELOCATABLE, FRAME_POINTERS is FRAME_POINTER. It returns "" for names that exist and those that are like nothing.
func (c Config) Suggest(name string) string {
	name = strings.TrimPrefix(strings.ToUpper(name), "CONFIG_")
	if _, known := c.Values[name]; known {
		return ""
	}
	best, least := "", len(name)/4+1
	for _, n := range slices.Sorted(maps.Keys(c.Values)) {
		if d := distance(name, n, least); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is Levenshtein's, or at least limit if it is not below limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(diag+cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// Need is something a person wants, and the options that give it: all of All and, if Any is not empty, one of Any.
type Need struct {
	Name string
	All  []string
	Any  []string
	Why  string
	Menu string // where menuconfig has it
}

// needs of a dump, in the order they are checked. V10: the names are RELOCATABLE and FRAME_POINTER, and on x86
// distributions' kernels it is ORC that makes back traces readable.
func dumpNeeds(machine string) []Need {
	unwinder := Need{Name: "readable back traces", Any: []string{"UNWINDER_ORC", "FRAME_POINTER"}, Why: "stacks are walked by ORC tables or frame pointers", Menu: "Kernel hacking → x86 Debugging → Choose kernel unwinder"}
	if machine == "aarch64" {
		unwinder.Any, unwinder.Menu = []string{"FRAME_POINTER"}, "always on for arm64"
	}
	return []Need{
		{Name: "start a second kernel", Any: []string{"KEXEC", "KEXEC_FILE"}, Why: "kexec loads the crash kernel", Menu: "General setup → Kexec and crash features"},
		{Name: "crash dump", All: []string{"CRASH_DUMP"}, Why: "reserves memory and starts the crash kernel on a panic", Menu: "General setup → Kexec and crash features → kernel crash dumps"},
		{Name: "/proc/vmcore", All: []string{"PROC_VMCORE"}, Why: "the crash kernel reads the dead one's memory there", Menu: "File systems → Pseudo filesystems → /proc/vmcore support"},
		{Name: "crash kernel elsewhere", All: []string{"RELOCATABLE"}, Why: "the same kernel runs in the reserved memory", Menu: "Processor type and features → Build a relocatable kernel"},
		{Name: "sysfs", All: []string{"SYSFS"}, Why: "kexec looks for the reserved memory there", Menu: "File systems → Pseudo filesystems → sysfs file system support"},
		{Name: "types and lines", Any: []string{"DEBUG_INFO", "DEBUG_INFO_BTF"}, Why: "BTF is enough for fathom core; DWARF adds source lines", Menu: "Kernel hacking → Compile-time checks and compiler options → Debug information"},
		unwinder,
	}
}

// met checks a need against a config and gives the evidence.
func (c Config) met(n Need) (ok bool, evidence []string) {
	ok = true
	for _, o := range n.All {
		ok = ok && c.on(o)
		evidence = append(evidence, c.evidence(o))
	}
	if len(n.Any) == 0 {
		return ok, evidence
	}
	if i := slices.IndexFunc(n.Any, c.on); i >= 0 {
		return ok, append(evidence, c.evidence(n.Any[i]))
	}
	for _, o := range n.Any {
		evidence = append(evidence, c.evidence(o))
	}
	return false, evidence
}

// fragment is what to add to a .config.
func (n Need) fragment() string {
	opts := n.All
	if len(n.Any) > 0 {
		opts = append(slices.Clone(opts), n.Any[0])
	}
	return "CONFIG_" + strings.Join(opts, "=y CONFIG_") + "=y (menuconfig: " + n.Menu + ")"
}

// base is filepath.Base, for names of devices.
func base(p string) string { return filepath.Base(p) }
