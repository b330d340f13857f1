package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/answers/explain/defs"
	"github.com/fathom-trace/fathom/examples"
	"github.com/fathom-trace/fathom/internal/complete"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/sysno"
	"github.com/fathom-trace/fathom/lab/exercise"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/modules"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/netstate/changes"
	"github.com/fathom-trace/fathom/record/session"
)

// noFiles is that a shell proposes no files of its own.
const noFiles = cobra.ShellCompDirectiveNoFileComp

func completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what a shell needs to complete fathom's command lines",
		Long: `Print the script by which a shell completes verbs, flags, and names of the kernel that runs: probes, events, functions,
structs, namespaces, devices, processes. Lists that are slow to read are kept in the cache folder. bash needs its package
bash-completion for names with colons.

Examples:
  source <(fathom completion bash)
  fathom completion zsh > "${fpath[1]}/_fathom"
  fathom completion fish > ~/.config/fish/completions/fathom.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: shells,
		RunE: func(c *cobra.Command, args []string) error {
			write := map[string]func(io.Writer) error{
				"bash": func(w io.Writer) error { return c.Root().GenBashCompletionV2(w, true) },
				"zsh":  c.Root().GenZshCompletion,
				"fish": func(w io.Writer) error { return c.Root().GenFishCompletion(w, true) },
			}
			return write[args[0]](c.OutOrStdout())
		},
	}
}

// proposal is what may stand in a place of a command line: names that begin with what is typed, and what the shell does.
type proposal = func(args []string, typed string) ([]string, cobra.ShellCompDirective)

// words proposes some of a few words, perhaps with a tab and a description behind them.
func words(list ...string) proposal {
	return func(_ []string, typed string) (out []string, _ cobra.ShellCompDirective) {
		for _, w := range list {
			if strings.HasPrefix(w, typed) {
				out = append(out, w)
			}
		}
		return out, noFiles
	}
}

// names proposes from a list that is read when it is asked for.
func names(list func() []string) proposal {
	return func(args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return words(list()...)(args, typed)
	}
}

// many proposes from a long sorted list, step by step.
func many(list func() []string) proposal {
	return func(_ []string, typed string) ([]string, cobra.ShellCompDirective) { return narrow(list(), "", typed) }
}

// narrow proposes names of a long sorted list behind a prefix of theirs.
func narrow(list []string, prefix, typed string) ([]string, cobra.ShellCompDirective) {
	found, whole := complete.Narrow(list, strings.TrimPrefix(typed, prefix), complete.Most)
	out := make([]string, len(found))
	for i, n := range found {
		out[i] = prefix + n
	}
	if !whole {
		return out, noFiles | cobra.ShellCompDirectiveNoSpace
	}
	return out, noFiles
}

// files leaves it to the shell, folders asks it for these alone, and nothing proposes nothing.
func files([]string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func folders([]string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func nothing([]string, string) ([]string, cobra.ShellCompDirective) { return nil, noFiles }

// orFiles adds the shell's files to proposals.
func orFiles(p proposal) proposal {
	return func(args []string, typed string) ([]string, cobra.ShellCompDirective) {
		out, _ := p(args, typed)
		return out, cobra.ShellCompDirectiveDefault
	}
}

// inTurn proposes by the place of an argument; the last stands for all that follow.
func inTurn(ps ...proposal) proposal {
	return func(args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return ps[min(len(args), len(ps)-1)](args, typed)
	}
}

// after proposes by the word before.
func after(by map[string]proposal, otherwise proposal) proposal {
	return func(args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			if p, ok := by[args[len(args)-1]]; ok {
				return p(args, typed)
			}
		}
		return otherwise(args, typed)
	}
}

// thisMachine is where names come from.
func thisMachine() complete.Machine {
	m := complete.Machine{}
	if dir, err := os.UserCacheDir(); err == nil {
		m.Cache = filepath.Join(dir, "fathom", "names")
	}
	return m
}

// probes proposes attach points: the provider, then what it can attach to. A list may be divided by commas.
func probes(_ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	provider, _, ok := strings.Cut(typed[len(before):], ":")
	if !ok {
		var out []string
		for _, p := range check.Providers() {
			if strings.HasPrefix(p.Name, provider) {
				name := p.Name
				if strings.Contains(p.Usage, ":") {
					name += ":"
				}
				out = append(out, before+name+"\t"+p.Usage)
			}
		}
		return out, noFiles | cobra.ShellCompDirectiveNoSpace
	}
	prefix := before + provider + ":"
	i := slices.IndexFunc(check.Providers(), func(p *check.Provider) bool { return p.Name == provider || slices.Contains(p.Aliases, provider) })
	if i < 0 {
		return nil, noFiles
	}
	m := thisMachine()
	switch check.Providers()[i].Name {
	case "tracepoint":
		return narrow(m.Events(), prefix, typed)
	case "rawtracepoint":
		return narrow(m.Tracepoints(), prefix, typed)
	case "kprobe", "kretprobe", "fentry", "fexit":
		return narrow(m.Functions(), prefix, typed)
	case "uprobe", "uretprobe", "usdt":
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, noFiles
}

func processes(_ []string, typed string) (out []string, _ cobra.ShellCompDirective) {
	for _, p := range thisMachine().Processes() {
		if strings.HasPrefix(p.Name, typed) {
			out = append(out, p.Name+"\t"+p.Doc)
		}
	}
	return out, noFiles | cobra.ShellCompDirectiveKeepOrder
}

func guestNames() (out []string) {
	list, _ := guests().List()
	for _, g := range list {
		out = append(out, g.Name)
	}
	return out
}

func labNames() (out []string) {
	list, _ := labs().List()
	for _, l := range list {
		out = append(out, l.Name)
	}
	return out
}

func hostNames() (out []string) {
	list, _ := labs().List()
	for _, l := range list {
		for _, h := range l.Hosts {
			out = append(out, h.Name)
		}
	}
	return out
}

func sessionNames() (out []string) {
	list, _ := session.List(leases())
	for _, k := range list {
		out = append(out, k.Name)
	}
	return out
}

func both(a, b func() []string) func() []string {
	return func() []string { return append(a(), b()...) }
}

func errnoNames() (out []string) {
	for n := 1; n < 532; n++ {
		if e, ok := defs.NewErrno(strconv.Itoa(n)); ok {
			out = append(out, e.Name+"\t"+e.Text)
		}
	}
	return out
}

// described gives names with what they mean, as a shell shows them.
func described[T any](all []T, of func(T) (name, text string)) (out []string) {
	for _, v := range all {
		name, text := of(v)
		out = append(out, name+"\t"+text)
	}
	return out
}

func exerciseNames() []string {
	return described(exercise.All(), func(e exercise.Exercise) (string, string) { return e.Name, e.Title })
}

func moduleNames() []string {
	return described(modules.List(), func(m modules.Module) (string, string) { return m.Name, m.Doc })
}

func toolNames() []string {
	return described(examples.Tools(), func(t examples.Tool) (string, string) { return t.Name, t.Doc })
}

func coreCommands() []string {
	return described(core.Commands(), func(c core.Command) (string, string) { return c.Name, c.Help })
}

func topicNames() (out []string) {
	for name := range topics {
		out = append(out, name)
	}
	for _, c := range root().Commands() {
		if !c.Hidden {
			out = append(out, c.Name())
		}
	}
	out = append(out, diag.Topics()...)
	slices.Sort(out)
	return slices.Compact(out)
}

func syscallNames() []string {
	list := sysno.Names(runtime.GOARCH)
	slices.Sort(list)
	return slices.Compact(list)
}

func watchKinds() (out []string) {
	for _, k := range changes.Kinds {
		out = append(out, string(k))
	}
	return append(out, "dev", "netns")
}

// byValue proposes values of flags by what their help calls them; what is not here has no proposals.
func byValue() map[string]proposal {
	m := thisMachine()
	kernels := orFiles(names(guest.KernelNames))
	return map[string]proposal{
		"FILE": files, "PATH": files, "PROGRAM": files, "COMMAND": files, "DIR": folders, "FOLDER": folders,
		"DEVICE": names(m.Devices), "PID": processes, "EVENT": many(m.Events), "EVENT[:EXPR]": many(m.Events), "FUNCTION": many(m.Functions),
		"GLOB": many(m.Functions), "KERNEL": kernels, "KERNELS": kernels, "IMAGE": orFiles(words("host", "none", "disk:")), "WHEN": words("auto", "always", "never"),
		"WHERE": words("xdp", "ingress", "egress"), "WHOSE": words("kernel", "user"), "VERDICT": words("delivered", "dropped"), "MODULE": names(m.Modules),
		"HOST": names(hostNames),
	}
}

// byFlag proposes values of flags by verb and flag, or by flag alone where all verbs mean the same.
func byFlag() map[string]proposal {
	m := thisMachine()
	return map[string]proposal{
		"--netns": names(m.Namespaces), "--comm": names(m.Comms), "--guest": names(guestNames), "--lab": names(labNames), "--session": names(sessionNames),
		"watch --netns":  names(func() []string { return append(m.Namespaces(), "all") }),
		"explain --of":   orFiles(words("live")),
		"trace --debug":  words("ast", "types", "ir0", "passes", "ir", "asm", "all"),
		"trace --format": words("text", "json"), "trace --mode": words("test", "bench"), "trace --buffering": words("line", "full", "none"),
		"trace --program": probes, "trace --probe-filter": nothing, "trace graph --engine": words("auto", "function_graph", "probes"),
		"rank --engine": words("auto", "hist", "bpf"), "rank --by": words("kstack", "ustack", "comm", "pid", "cpu"),
		"view --to": words("perfetto", "chrome", "ctf", "folded", "flame", "pprof"), "bypass --mode": words("native", "generic", "offload", "auto"),
		"bypass --wait": words("netpoll", "poll", "spin", "yield", "busy-poll"), "lab boot --nic": words("virtio", "e1000e", "igb"),
		"lab matrix --nic": words("virtio", "e1000e", "igb"), "lab boot --net": words("user", "none", "tap:"), "lab matrix --net": words("user", "none", "tap:"),
		"lab boot --preset":   words("nokaslr", "crashkernel", "panic-wait", "oops-panic", "sysrq", "verbose"),
		"lab matrix --preset": words("nokaslr", "crashkernel", "panic-wait", "oops-panic", "sysrq", "verbose"),
		"lab dump --format":   words("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy"), "lab boot --device": words("pvpanic", "isa-serial", "pci-serial"),
	}
}

// byVerb proposes arguments.
func byVerb() map[string]proposal {
	m := thisMachine()
	devices, spaces := names(m.Devices), names(m.Namespaces)
	sessions, guestOf := names(sessionNames), names(guestNames)
	return map[string]proposal{
		"trace": orFiles(names(toolNames)), "trace graph": many(m.Functions), "rank": many(m.Events),
		"packet":         words("host", "net", "port", "src", "dst", "tcp", "udp", "icmp", "icmp6", "arp", "ip", "ip6", "ether", "vlan", "not"),
		"packet drops":   words("host", "net", "port", "src", "dst", "tcp", "udp", "icmp", "icmp6", "arp", "ip", "ip6", "ether", "vlan", "not"),
		"packet explain": files, "packet diff": files,
		"packet why": after(map[string]proposal{"dev": devices, "netns": spaces, "to": nothing, "from": nothing}, words("dev", "netns", "to", "from")),
		"watch":      after(map[string]proposal{"dev": devices, "netns": spaces}, names(watchKinds)),
		"nic":        devices, "record": nothing, "record enable": many(m.Events), "record list": sessions, "record start": sessions, "record stop": sessions,
		"record rotate": sessions, "record snapshot": sessions, "record destroy": sessions, "record create": nothing, "record new-event": nothing, "view": files,
		"explain": files, "explain address": many(m.Functions), "explain struct": many(m.Types), "explain function": many(m.Functions),
		"explain syscall": names(syscallNames), "explain tracepoint": many(m.Events), "explain probe": many(m.Functions), "explain errno": names(errnoNames),
		"explain drop": names(defs.DropNames), "explain config": nothing, "core": inTurn(files, names(coreCommands), nothing),
		"bypass": nothing, "bypass prog load": files, "bypass prog run": files, "bypass prog attach": files, "bypass prog replace": files,
		"lab up": nothing, "lab down": names(both(labNames, guestNames)), "lab exec": inTurn(names(both(hostNames, guestNames)), files), "lab boot": files,
		"lab matrix": files, "lab console": guestOf, "lab cp": files, "lab sysrq": inTurn(guestOf, words("b", "c", "d", "l", "m", "p", "s", "t", "u", "w")),
		"lab dump": inTurn(guestOf, files), "lab gdb": guestOf, "lab try": names(exerciseNames), "lab module build": orFiles(names(moduleNames)),
		"lab module load": inTurn(orFiles(names(moduleNames)), guestOf, nothing), "lab module unload": inTurn(names(moduleNames), guestOf),
		"lab send": words("udp", "tcp", "raw"), "lab listen": words("udp", "tcp", "raw"), "help": names(topicNames),
	}
}

// proposeAll tells cobra what may stand where, for all verbs below c.
func proposeAll(c *cobra.Command) {
	c.InitDefaultHelpCmd()
	values, flags, args := byValue(), byFlag(), byVerb()
	var walk func(*cobra.Command)
	walk = func(v *cobra.Command) {
		path := strings.TrimPrefix(v.CommandPath(), "fathom ")
		verb, _, _ := strings.Cut(path, " ")
		v.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				return
			}
			value, _ := pflag.UnquoteUsage(f)
			p := first(flags[path+" --"+f.Name], flags[verb+" --"+f.Name], flags["--"+f.Name], values[value], nothing)
			if err := v.RegisterFlagCompletionFunc(f.Name, completer(p)); err != nil {
				panic(fmt.Sprintf("%s: %v", path, err))
			}
		})
		if len(v.ValidArgs) == 0 {
			p := first(args[path], nothing)
			if path == "trace" { // -l lists probes
				run := p
				v.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
					if list, _ := c.Flags().GetBool("list"); list {
						return completer(probes)(c, args, typed)
					}
					return completer(run)(c, args, typed)
				}
			} else {
				v.ValidArgsFunction = completer(p)
			}
		}
		for _, s := range v.Commands() {
			walk(s)
		}
	}
	walk(c)
}

func first(ps ...proposal) proposal {
	for _, p := range ps {
		if p != nil {
			return p
		}
	}
	return nil
}

// completer is a proposal as cobra asks for it. Whatever goes wrong, nothing is proposed: nobody who presses a key wants to
// read why.
func completer(p proposal) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, typed string) (out []string, d cobra.ShellCompDirective) {
		defer func() {
			if recover() != nil {
				out, d = nil, noFiles
			}
		}()
		return p(args, typed)
	}
}
