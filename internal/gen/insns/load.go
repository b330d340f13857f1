package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// rounds is how often each program is loaded.
const rounds = 5

// traceable writes the functions that kprobes may be put on to a file: the kernel's, where it has no function tracer to
// tell, and those that tools name and this kernel does not have.
func traceable(path string, tools []string) error {
	syms, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(syms)) {
		if f := strings.Fields(line); len(f) > 2 && strings.EqualFold(f[1], "t") {
			fmt.Fprintln(&out, f[2])
		}
	}
	named := regexp.MustCompile(`(?m)^k(?:ret)?probe:(\w+)`)
	for _, t := range tools {
		text, err := os.ReadFile(t)
		if err != nil {
			return err
		}
		for _, m := range named.FindAllSubmatch(text, -1) {
			fmt.Fprintf(&out, "%s\n", m[1])
		}
	}
	return os.WriteFile(path, out.Bytes(), 0o600)
}

// ofFathom compiles a tool here and loads it.
func ofFathom(file, funcs string) (cost, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return cost{}, err
	}
	var diags []syntax.Diag
	c, err := script.ForHere(script.Options{Source: &syntax.Source{Name: file, Text: string(text)}, Traceable: funcs,
		Diags: func(ds []syntax.Diag) { diags = ds }})
	for _, d := range diags {
		if d.Severity == syntax.Error {
			return cost{}, errors.New(d.Msg)
		}
	}
	if err != nil {
		return cost{}, err
	}
	spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{}}
	for _, m := range c.Obj.Maps {
		s := m.Spec.Copy()
		s.Name = ""
		spec.Maps[m.Spec.Name] = s
	}
	for _, p := range c.Obj.Programs {
		spec.Programs[p.Name] = &ebpf.ProgramSpec{Name: "p", Type: p.Type, AttachType: p.AttachType, Instructions: p.Insns, License: "GPL"}
	}
	return load(spec)
}

// ofPeer has bpftrace compile a tool, and loads what it would load.
func ofPeer(peer, file, funcs, elf string) (cost, error) {
	os.Remove(elf)
	if _, err := command(peer, "--traceable-functions", funcs, "--mode", "codegen", "--emit-elf", elf, file); err != nil {
		return cost{}, err
	}
	spec, err := ebpf.LoadCollectionSpec(elf)
	if err != nil {
		return cost{}, err
	}
	for _, m := range spec.Maps { // bpftrace sizes its ring when it loads
		if m.Type == ebpf.RingBuf && m.MaxEntries == 0 {
			m.MaxEntries = uint32(os.Getpagesize())
		}
		m.Pinning = ebpf.PinNone
	}
	for _, p := range spec.Programs {
		p.Type, p.License = kind(p.SectionName), "GPL"
	}
	return load(spec)
}

// kind gives the type of a program of bpftrace's by its section, s_kprobe_….
func kind(section string) ebpf.ProgramType {
	k, _, _ := strings.Cut(strings.TrimPrefix(section, "s_"), "_")
	switch k {
	case "tracepoint":
		return ebpf.TracePoint
	case "interval", "profile", "software", "hardware":
		return ebpf.PerfEvent
	case "begin", "end", "BEGIN", "END":
		return ebpf.RawTracepoint
	}
	return ebpf.Kprobe
}

var took = regexp.MustCompile(`verification time (\d+) usec`)

// load loads programs several times over and sums what the verifier says of them.
func load(spec *ebpf.CollectionSpec) (cost, error) {
	var c cost
	for _, p := range spec.Programs {
		c.insns += slots(p.Instructions)
	}
	best := map[string]int{}
	for range rounds {
		coll, err := ebpf.NewCollectionWithOptions(spec.Copy(), ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
		if err != nil {
			return cost{}, fmt.Errorf("load: %w", err)
		}
		c.verified = 0
		for name, p := range coll.Programs {
			if _, n, ok := strings.Cut(p.VerifierLog, "processed "); ok {
				var v int
				fmt.Sscan(n, &v)
				c.verified += v
			}
			if g := took.FindStringSubmatch(p.VerifierLog); g != nil {
				var us int
				fmt.Sscan(g[1], &us)
				if old, ok := best[name]; !ok || us < old {
					best[name] = us
				}
			}
		}
		coll.Close()
	}
	for _, us := range best {
		c.micros += us
	}
	return c, nil
}

// slots counts instructions as the kernel does: loading a 64-bit constant takes two.
func slots(insns asm.Instructions) int {
	n := 0
	for _, in := range insns {
		n++
		if in.OpCode.IsDWordLoad() {
			n++
		}
	}
	return n
}

// command runs a program; its error is the first line of what it complained of.
func command(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	for line := range strings.Lines(diag.String()) {
		if _, msg, ok := strings.Cut(line, "ERROR: "); ok {
			return nil, errors.New(strings.TrimSpace(msg))
		}
	}
	return nil, err
}
