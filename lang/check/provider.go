package check

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/lang/types"
)

// common is what every probe that runs in a traced task has.
const common = Stacks | Process

// providers is the table of probe types.
var providers = []*Provider{
	{Name: "begin", Aliases: []string{"BEGIN"}, Args: common, Special: true, Usage: "begin"},
	{Name: "end", Aliases: []string{"END"}, Args: common, Special: true, Usage: "end"},
	{Name: "self", Args: common, Special: true, Usage: "self:signal:SIGUSR1"},
	{Name: "test", Args: common, Special: true, Usage: "test:name"},
	{Name: "bench", Aliases: []string{"BENCH"}, Args: common, Special: true, Usage: "bench:name"},
	{Name: "kprobe", Aliases: []string{"k"}, Args: ArgN | FuncName | Regs | Ctx | common, Wildcard: true,
		Usage: "kprobe[:module]:function[+offset]", Space: types.Kernel, Multi: true},
	{Name: "kretprobe", Aliases: []string{"kr"}, Args: Retval | FuncName | Regs | Ctx | common, Wildcard: true,
		Usage: "kretprobe[:module]:function", Space: types.Kernel, Multi: true},
	{Name: "fentry", Aliases: []string{"f", "kfunc"}, Args: ArgsStruct | FuncName | common, Wildcard: true,
		Usage: "fentry[:module]:function", Space: types.Kernel, Multi: true},
	{Name: "fexit", Aliases: []string{"fr", "kretfunc"}, Args: ArgsStruct | Retval | FuncName | common, Wildcard: true,
		Usage: "fexit[:module]:function", Space: types.Kernel, Multi: true},
	{Name: "tracepoint", Aliases: []string{"t"}, Args: ArgsStruct | common, Wildcard: true,
		Usage: "tracepoint:category:event", Space: types.Kernel, Multi: true},
	{Name: "rawtracepoint", Aliases: []string{"rt"}, Args: ArgN | ArgsStruct | Ctx | common, Wildcard: true,
		Usage: "rawtracepoint[:module]:event", Space: types.Kernel, Multi: true},
	{Name: "uprobe", Aliases: []string{"u"}, Args: ArgN | ArgsStruct | FuncName | Regs | Ctx | common, Wildcard: true,
		Usage: "uprobe:binary:function[+offset]", Space: types.User, Multi: true},
	{Name: "uretprobe", Aliases: []string{"ur"}, Args: Retval | FuncName | Regs | Ctx | common, Wildcard: true,
		Usage: "uretprobe:binary:function", Space: types.User, Multi: true},
	{Name: "usdt", Aliases: []string{"U"}, Args: ArgN | Regs | Ctx | common, Wildcard: true,
		Usage: "usdt:binary[:namespace]:probe", Space: types.User, Multi: true},
	{Name: "profile", Aliases: []string{"p"}, Args: Regs | Ctx | common, Special: true,
		Usage: "profile:hz|s|ms|us:rate", Space: types.Kernel},
	{Name: "interval", Aliases: []string{"i"}, Args: Regs | Ctx | common, Special: true,
		Usage: "interval:hz|s|ms|us:rate", Space: types.Kernel},
	{Name: "software", Aliases: []string{"s"}, Args: Regs | Ctx | common, Special: true,
		Usage: "software:event[:count]", Space: types.Kernel},
	{Name: "hardware", Aliases: []string{"h"}, Args: Regs | Ctx | common, Special: true,
		Usage: "hardware:event[:count]", Space: types.Kernel},
	{Name: "watchpoint", Aliases: []string{"w"}, Args: Regs | Ctx | common, Special: true,
		Usage: "watchpoint:address:length:mode", Space: types.Kernel},
	{Name: "iter", Aliases: []string{"it"}, Args: Ctx | common, Usage: "iter:object[:pin]", Space: types.Kernel},
}

// Providers gives the table of probe types, for listings and help. The rows are not to be changed.
func Providers() []*Provider { return providers }

// FindProvider finds a probe type by its name or an alias.
func FindProvider(name string) (*Provider, bool) {
	for _, p := range providers {
		if p.Name == name {
			return p, true
		}
		for _, a := range p.Aliases {
			if a == name {
				return p, true
			}
		}
	}
	return nil, false
}

// providerNames gives all names, not the short ones.
func providerNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, p := range providers {
			if !yield(p.Name) {
				return
			}
		}
	}
}

// has reports all of the argument styles s.
func (p *Provider) has(s ArgStyle) bool { return p.Args&s == s }

// isUser reports probes of user programs.
func (p *Provider) isUser() bool { return p.Space == types.User }

// kind is the probe type as the probetype builtin gives it.
func (p *Provider) kind() string {
	switch p.Name {
	case "begin", "end", "self":
		return "special"
	}
	return p.Name
}

// isWild reports wildcards in a part of an attach point.
func isWild(s string) bool { return strings.ContainsAny(s, "*?[") }

// softwareEvents and hardwareEvents are the events perf_event_open(2) has, by every name, with the canonical one.
var softwareEvents = map[string]string{
	"alignment-faults": "alignment-faults", "bpf-output": "bpf-output", "context-switches": "context-switches",
	"cs": "context-switches", "cpu-clock": "cpu-clock", "cpu": "cpu-clock", "cpu-migrations": "cpu-migrations",
	"dummy": "dummy", "emulation-faults": "emulation-faults", "major-faults": "major-faults", "minor-faults": "minor-faults",
	"page-faults": "page-faults", "faults": "page-faults", "task-clock": "task-clock",
}

var hardwareEvents = map[string]string{
	"backend-stalls": "backend-stalls", "branch-instructions": "branch-instructions", "branches": "branch-instructions",
	"branch-misses": "branch-misses", "bus-cycles": "bus-cycles", "cache-misses": "cache-misses",
	"cache-references": "cache-references", "cpu-cycles": "cpu-cycles", "cycles": "cpu-cycles",
	"frontend-stalls": "frontend-stalls", "instructions": "instructions", "ref-cycles": "ref-cycles",
}

// EventNames gives the events of a provider whose events are fixed, sorted, every name of each: for listings.
func EventNames(provider string) []string {
	switch provider {
	case "software":
		return slices.Sorted(maps.Keys(softwareEvents))
	case "hardware":
		return slices.Sorted(maps.Keys(hardwareEvents))
	case "interval", "profile":
		return []string{"hz", "ms", "s", "us"}
	}
	return nil
}
