// Package complete finds the names that somebody who types a command may mean: of devices, namespaces, processes, events,
// functions and types of the machine it runs on. It is asked at every press of a key, so it reads little, and gives nothing
// where something cannot be read: that is for the command itself to say.
package complete

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/tracefs"
)

// Most is how many names are proposed at once; more are shortened to what they have in common.
const Most = 200

// Choice is a name and what it is.
type Choice struct{ Name, Doc string }

// Machine is where names come from. Empty fields are the places of a running system.
type Machine struct {
	Proc, Sys, Run string // default /proc, /sys, /run
	Cache          string // folder for what is slow to read; "" keeps nothing
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func entries(dir string) []string {
	list, _ := os.ReadDir(dir)
	out := make([]string, 0, len(list))
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// Devices are the network devices of this process's namespace.
func (m Machine) Devices() []string { return entries(filepath.Join(or(m.Sys, "/sys"), "class/net")) }

// Modules are the kernel's modules that are loaded.
func (m Machine) Modules() []string { return m.kernel().Modules() }

// Namespaces are the network namespaces with a name.
func (m Machine) Namespaces() []string { return entries(filepath.Join(or(m.Run, "/run"), "netns")) }

// Processes are numbers of processes, each with its name, the latest first.
func (m Machine) Processes() []Choice {
	proc := or(m.Proc, "/proc")
	var pids []int
	for _, name := range entries(proc) {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	slices.Reverse(pids)
	var out []Choice
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if exe, err := os.Readlink(filepath.Join(dir, "exe")); os.IsNotExist(err) && exe == "" {
			continue // a thread of the kernel
		}
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		if out = append(out, Choice{strconv.Itoa(pid), strings.TrimSpace(string(comm))}); len(out) == Most {
			break
		}
	}
	return out
}

// Comms are the names of processes.
func (m Machine) Comms() []string {
	var out []string
	for _, p := range m.Processes() {
		out = append(out, p.Doc)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Events are the kernel's events, "system:name". A list that only root may read is remembered for root alone; who may not
// read it gets the names of the kernel's tracepoints under no system.
func (m Machine) Events() []string {
	return m.cached("events", func() []string {
		fs, err := tracefs.Find()
		if err != nil {
			return nil
		}
		defer fs.Close()
		list, err := fs.Events()
		if err != nil {
			return nil
		}
		out := make([]string, 0, len(list))
		for _, e := range list {
			out = append(out, e.System+":"+e.Name)
		}
		return out
	})
}

func (m Machine) kernel() *live.Live {
	l, err := live.Open(live.Options{Proc: m.Proc, Sys: m.Sys})
	if err != nil {
		return nil
	}
	return l
}

// Tracepoints are the names of the kernel's tracepoints, without their systems.
func (m Machine) Tracepoints() []string {
	return m.cached("tracepoints", func() []string {
		out, _ := m.kernel().Tracepoints()
		return out
	})
}

// Functions are the functions that the kernel's types tell of: all that it has prototypes for.
func (m Machine) Functions() []string {
	return m.cached("functions", func() []string {
		b, err := m.kernel().BTF()
		if err != nil {
			return nil
		}
		return b.Funcs("")
	})
}

// Types are the kernel's structs, unions, enums and typedefs by name.
func (m Machine) Types() []string {
	return m.cached("types", func() []string {
		b, err := m.kernel().BTF()
		if err != nil {
			return nil
		}
		var out []string
		for _, k := range []ctype.Kind{ctype.KindStruct, ctype.KindUnion, ctype.KindEnum, ctype.KindTypedef} {
			out = append(out, b.Names(k, "")...)
		}
		slices.Sort(out)
		return slices.Compact(out)
	})
}

// cached gives a list of this kernel's, from a file if it was read before.
func (m Machine) cached(what string, read func() []string) []string {
	name := ""
	if m.Cache != "" {
		name = filepath.Join(m.Cache, m.build(), what)
		if b, err := os.ReadFile(name); err == nil && len(b) > 0 {
			return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		}
	}
	list := read()
	if name != "" && len(list) > 0 {
		m.keep(name, list)
	}
	return list
}

// keep writes a list for the next time, whole or not at all, and forgets those of other kernels. It is for speed alone: no
// error of it matters.
func (m Machine) keep(name string, list []string) {
	dir := filepath.Dir(name)
	if os.MkdirAll(dir, 0o700) != nil {
		return
	}
	for _, other := range entries(m.Cache) {
		if other != filepath.Base(dir) {
			os.RemoveAll(filepath.Join(m.Cache, other))
		}
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(name))
	if err != nil {
		return
	}
	_, err = f.WriteString(strings.Join(list, "\n") + "\n")
	if cerr := f.Close(); err != nil || cerr != nil || os.Rename(f.Name(), name) != nil {
		os.Remove(f.Name())
	}
}

// build names this boot of this kernel with the modules it has loaded: what changes the lists.
func (m Machine) build() string {
	boot, _ := os.ReadFile(filepath.Join(or(m.Proc, "/proc"), "sys/kernel/random/boot_id"))
	return strings.TrimSpace(string(boot)) + "-" + strconv.Itoa(len(m.kernel().Modules()))
}
