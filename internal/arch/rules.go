package arch

// Groups of packages that rows name together.
const (
	ebpfCore = "github.com/cilium/ebpf github.com/cilium/ebpf/asm github.com/cilium/ebpf/btf"
	ebpfRun  = "github.com/cilium/ebpf/link github.com/cilium/ebpf/perf github.com/cilium/ebpf/rlimit github.com/cilium/ebpf/features"
	sys      = "os/... syscall golang.org/x/sys/unix"
	rtnl     = "github.com/vishvananda/netlink/... github.com/vishvananda/netns github.com/mdlayher/netlink github.com/google/nftables/..."
	unpack   = "github.com/klauspost/compress/... github.com/pierrec/lz4/v4 github.com/ulikunitz/xz/... github.com/anchore/go-lzo"

	decoders = "wire/... traceevent/... ctype/... debuginfo/... vmcore/... oops/... record/ctf record/tracedat record/perfdata"
	compiler = "lang/syntax lang/types lang/check lang/stdlib ir/... bpf/..."
	backends = "kernel/live kernel/dump kernel/image kernel/remote"
	answers  = "answers/graph answers/packet answers/rank answers/watch answers/nic answers/explain answers/core"

	ourDecoders = "./wire/... ./traceevent/... ./ctype/... ./debuginfo/... ./vmcore/... ./oops/..."
	ourModels   = "./kernel ./kernel/unwind ./kernel/walk ./kernel/cexpr ./usersym ./tracefs ./netstate/..."
	ourBackends = "./kernel/live ./kernel/dump ./kernel/image ./kernel/remote"
)

// Edges are the imports that are allowed (DESIGN §3). Our own packages are written "./x" in To.
var Edges = []Edge{
	{"cmd/fathom", "./internal/cli os", "main is ten lines: arguments in, exit code out"},
	{"internal/cli/...", "./...", "the command line puts everything together"},
	{"internal/cli/...", "os/... syscall github.com/spf13/cobra github.com/spf13/pflag golang.org/x/term log/slog", "flags, files and signals belong to commands"},
	{"internal/cli/man", "flag", "a generator that needs the tree of commands"},
	{"internal/cli/tui", "charm.land/bubbletea/v2 charm.land/lipgloss/v2", "full-screen views only"},

	// The compiler: text in, bound BPF out; touches no system (rule 1).
	{"lang/types", "./ctype", "C types are what the language's types come from"},
	{"lang/check", "./lang/syntax ./lang/types ./ctype", "the stage before, and the types"},
	{"lang/stdlib", "./lang/syntax", "sources that programs import"},
	{"lang/syntax/syntaxtest", "./lang/syntax os testing/... github.com/google/go-cmp/cmp", "the test driver of .bt files is no part of the compiler"},
	{"ir", "./lang/syntax ./lang/types", "values know their type and the place in the script"},
	{"ir/...", "./ir", "builders and passes work on the IR"},
	{"ir/build", "./debuginfo/usdt", "where the arguments of a USDT probe are stands in its note"},
	{"ir/build", "./lang/check ./lang/syntax ./lang/types ./ctype", "checked programs become IR"},
	{"bpf/...", "./bpf ./ir", "code generation starts at the IR, never at text"},
	{"bpf/gen", "./ir/opt", "what binding adds is optimised by the same passes"},
	{"bpf/gen", "./lang/syntax", "instructions know their place in the script, for verifier errors"},
	{"bpf/...", ebpfCore, "instructions and program specifications are cilium/ebpf's"},

	// Decoders: bytes in, values out (rule 2).
	{decoders, "./internal/bin", "the cursor"},
	{decoders, "./ctype/...", "layouts are C types"},
	{"debuginfo/...", "./debuginfo/... golang.org/x/arch/... github.com/ianlancetaylor/demangle " + unpack, "sections refer to each other; disassembly, names and compression by library"},
	{"wire/...", "./wire/header golang.org/x/net/bpf", "packet headers are shared; filters are classic BPF, too"},
	{"wire/filter", "./ir", "filters become IR"},
	{"vmcore/...", "./vmcore " + unpack, "dumps are compressed"},
	{"oops/cause", "./oops ./debuginfo/disasm", "a cause needs the incident and its code in words"},
	{"traceevent/...", "./traceevent ./traceevent/filter", "conditions and histograms are of events"},
	{"record/ctf record/tracedat record/perfdata", "./traceevent " + unpack, "recordings carry the kernel's event formats"},

	// Models: what a kernel, a process, a network is (rules 3 and 4).
	{"kernel kernel/unwind kernel/walk kernel/cexpr kernel/ftrace " + backends, "./kernel ./ctype/... ./debuginfo/... ./internal/bin ./internal/feature", "a target is types, symbols and memory"},
	{"kernel/walk", "./kernel/unwind", "a task's stack is one of its properties"},
	{"kernel/ftrace", "./traceevent", "what the tracer recorded is events under their formats"},
	{backends, sys, "a backend is where the files are"},
	{"kernel/live", "./tracefs ./traceevent", "the running kernel's events"},
	{"kernel/dump kernel/image", "./vmcore/... " + unpack, "dumps and images"},
	{"kernel/remote", "./lab/guest/qmp net", "a guest's gdb stub and monitor"},
	{"usersym", "./ctype/dwarftypes", "what a program's debug information says of its types"},
	{"usersym", "./debuginfo/... ./internal/bin ./internal/feature github.com/ianlancetaylor/demangle " + unpack + " " + sys, "symbols of processes and ELF files"},
	{"tracefs", "./traceevent ./internal/feature ./internal/lease " + sys, "instances outlive a process: they need a lease"},
	{"tracefs", "./internal/bin", "the stack tracer's text may be no such text"},
	{"netstate", "./netstate/nft ./wire/header", "a state holds firewall rules, which packets are run through"},
	{"netstate/nlattr", "./internal/bin", "netlink attributes"},
	{"netstate/nft", "./netstate/nlattr ./wire/header", "rules come as netlink attributes, and are tried on packets"},
	{"netstate/rtnl netstate/sockdiag netstate/procnet", "./netstate ./netstate/nlattr ./netstate/sockdiag", "the kernel's answers become parts of a state; pure"},
	{"netstate/nic", "./netstate ./netstate/nlattr", "interrupts and queues of devices, decoded; pure"},
	{"netstate/live", "./netstate/... ./internal/netns ./internal/feature net " + sys + " " + rtnl, "the network as it is: sockets and files"},
	{"netstate/live", "github.com/cilium/ebpf github.com/cilium/ebpf/link", "names of BPF programs, and which tcx has: bpf(2) alone tells"},
	{"netstate/rdma", "./netstate/nlattr os path/filepath golang.org/x/sys/unix github.com/mdlayher/netlink", "RDMA devices as they are: sysfs and netlink"},
	{"netstate/live", "unsafe", "SIOCETHTOOL takes a pointer inside a struct"},
	{"bypass/sockets", "unsafe", "seccomp(2) and its ioctls take pointers to structs"},
	{"netstate/changes", "./netstate/... ./internal/bin ./internal/netns " + sys + " " + rtnl, "the network as it changes, and the sysctls: sockets and files"},

	// Engines.
	{"probe probe/...", "./probe/... ./bpf/... ./ir ./kernel ./kernel/live ./usersym ./tracefs ./traceevent ./ctype/... ./debuginfo/... ./internal/feature ./internal/lease ./internal/memlock", "probes bind programs to the running kernel"},
	{"probe probe/...", "./lang/check ./lang/types ./lang/syntax", "probe answers the checker's questions: it is its World"},
	{"probe probe/...", sys + " net " + ebpfCore + " " + ebpfRun, "loading, attaching, reading"},
	{"probe probe/ring record/ringpage bypass/xsk bypass/tpacket bypass/shm bypass/verbs", "unsafe", "memory shared with the kernel or another process"},
	{"probe", "./ir/emit", "programs written by hand are compiled and loaded in one place"},
	{"probe/offline probe/recorded", "./bpf/vm", "programs run in the BPF machine"},
	{"probe/recorded", "./record", "a recording is what programs run over"},
	{"probe/dead", "./kernel/walk", "what programs run over in a dead kernel is walked"},
	{"record", "./wire/pcapng ./wire/header", "captures of packets are recordings, too"},
	{"record", "./debuginfo/kallsyms", "trace-cmd's and perf's files have the kernel's symbols in them"},
	{"record", "./record/... ./probe/... ./tracefs ./traceevent ./usersym ./kernel ./bpf/... ./ir ./internal/sysno ./internal/lease ./internal/feature ./internal/bin " + sys, "sessions"},
	{"record/session", "./record ./tracefs ./internal/lease net " + sys, "the keeper of a session records, and answers on a socket"},
	{"record/ringpage", "golang.org/x/sys/unix", "pages are spliced"},
	{"internal/remote", "./internal/lease " + sys, "runs ssh, and a verb at the far end of it, whose folder has an owner"},
	{"internal/packets/capture", "./ir ./ir/emit ./bpf/gen ./ctype ./probe ./probe/try ./wire/filter ./answers/packet " + sys, "programs written as IR read the kernel's structs by their types"},
	{"internal/packets", "./answers/packet ./internal/packets/capture ./internal/netns ./kernel/live ./netstate ./netstate/live ./netstate/changes ./probe ./usersym ./ctype ./wire/filter " + ebpfCore + " github.com/cilium/ebpf/link " + sys, "packet in a row: see, read the machine's state, explain"},
	{"answers/rank", "./ir/emit ./internal/lease", "programs written as IR; a tracing instance has an owner"},
	{answers, "./ir ./ir/build ./bpf/... ./probe/... ./record/... ./internal/feature " + ourModels + " " + ourDecoders, "answers are ready-made questions (rule 5)"},
	{"answers/explain/defs", "./ctype ./traceevent ./internal/sysno golang.org/x/sys/unix", "what names mean, by types, formats and tables; pure but for the names of errnos"},
	{"answers/packet/why", "./netstate", "reasons over a state that was read"},
	{"answers/packet answers/nic", "./internal/timeline", "ways of packets as timelines"},
	{"answers/nic", "./ir/emit html", "measures by programs written as IR; names on a page are escaped"},
	{"internal/polling", "./answers/nic ./netstate/live ./netstate/nic ./internal/netns ./internal/lease ./lab/topology ./lab/topology/traffic ./lab/attach net/netip " + sys, "nic --modes: changes a device's settings under a lease, puts it under load, measures"},
	{"answers/watch", "./ir/emit ./netstate/changes", "joins changes with what programs written as IR saw"},
	{"bypass/...", "./bypass/xsk ./wire/... ./internal/feature ./internal/memlock ./internal/netns ./internal/lease ./netstate net " + sys + " " + rtnl, "going around the kernel needs its devices"},
	{"internal/xskwhy", "./answers/nic ./bypass/held ./probe ./internal/sysno " + sys, "bypass why: looks at AF_XDP sockets of others while programs count, and judges"},
	{"bypass/held", ebpfCore + " github.com/cilium/ebpf/link", "who has a program: bpf(2) tells"},
	{"bypass/steer", "./bypass/held ./ir/emit ./ir/opt", "a program that is there is named; rules are written as IR"},
	{"bypass/verbs", "./netstate/rdma", "which devices there are, and their drivers"},
	{"bypass/verbs/pingpong", "./bypass/verbs", "measures by it"},
	{"bypass/compare", "./bypass/steer ./bypass/traffic ./bypass/shm ./bypass/netstack", "each way of sending is measured by the same means"},
	{"bypass/prog/bpfelf", "github.com/cilium/ebpf/asm", "objects for tests hold instructions"},
	{"bypass/prog", "./bypass/steer ./bypass/held " + ebpfCore + " github.com/cilium/ebpf/link", "a person's own programs are loaded and attached"},
	{"bypass/traffic", "./bypass/steer", "traffic needs the program that steers it"},
	{"bypass/steer", "./ir ./bpf/... ./wire/filter " + ebpfCore + " " + ebpfRun, "steering programs are built from IR (rule 5)"},
	{"bypass/sockets", "./bypass/netstack", "a program's sockets are carried by the stack"},
	{"bypass/netstack", "./bypass/steer ./bypass/held ./bypass/traffic ./bypass/tpacket golang.org/x/net/bpf gvisor.dev/gvisor/pkg/...", "the user-space TCP/IP, on queues and what steers to them: a program of XDP, or a filter of AF_PACKET"},
	{"bypass/tpacket", "golang.org/x/net/bpf", "filters of sockets are classic BPF"},
	{"view/...", "./view/... ./ir ./lang/check ./lang/types ./ctype ./usersym ./kernel ./internal/term ./internal/bin", "values are printed by their type"},
	{"view/flame view/events", "html", "names in a drawing are escaped"},
	{"view/events", "./traceevent", "events are printed as their format says"},
	{"view/browse", "./traceevent html net/url crypto/...", "pages of events, chosen by the fields of a form; a script is named by its hash"},
	{"internal/loopback", "net net/url", "answers a browser on the loopback"},
	{"traceevent/match", "./traceevent ./traceevent/filter", "conditions are over events"},
	{"traceevent", "net/netip", "addresses are printed as the kernel prints them"},
	{"view", "./internal/diag ./lang/syntax", "what a program says at run time looks as what the compiler says"},
	{"view", "syscall ./internal/sysno", "names of signals, errors and system calls"},
	{"lang/check", "./internal/sysno", "__NR_read is a number"},
	{"lab/guest/kmod", "./ctype/... ./debuginfo/bzimage", "a module's structs are compared with the kernel's types"},
	{"lab/exercise", ebpfCore, "parts of exercises that pin a map or look at one"},
	{"lab/fault", "github.com/cilium/ebpf", "an error of a kernel without a kind of program"},
	{"lab/attach", ebpfCore + " github.com/cilium/ebpf/link", "BPF programs on the devices of a network"},
	{"lab/topology/traffic lab/fault/...", "./wire/header", "frames are made of headers and checksums"},
	{"lab/...", "./lab/... ./internal/netns ./internal/lease ./internal/feature ./internal/bin ./kernel/remote net " + sys + " " + rtnl + " " + unpack, "namespaces and guests"},

	// Leaf helpers.
	{"answers/... bpf/... kernel/... lang/... netstate/... oops probe/... record/... tracefs view/... vmcore wire/... internal/...", "./internal/sorting", "sorting by a comparison takes room once"},
	{"answers/... internal/...", "./internal/jsonl", "what -j shows has one form"},
	{"internal/feature", "syscall", "an errno is evidence"},
	{"internal/diag", "./lang/syntax ./internal/feature syscall os", "places in a program, missing features, errnos, and whether root was refused"},
	{"internal/complete", "./kernel/live ./tracefs ./ctype os", "names that a shell completes come from the machine"},
	{"internal/term", "golang.org/x/term golang.org/x/sys/unix os", "asks the terminal"},
	{"internal/netns internal/lease", "./internal/feature ./internal/bin " + sys, "what outlives a process is the system's"},
	{"internal/netns", "./internal/lease", "named namespaces have a lease"},
	{"internal/script", "./...", "the pipeline from text to output, for the command line and its tests"},
	{"internal/script", ebpfCore + " " + sys, "what a script does to the system: cat, system, signals, -c"},
	{"internal/gen/insns", ebpfCore + " github.com/cilium/ebpf/rlimit", "loads programs and counts their instructions"},
	{"internal/demo", "./ir ./ir/build ./lang/check ./lang/syntax ./lang/types ./probe/... ./kernel/live ./usersym ./lab/topology/... ./internal/script ./internal/diag ./internal/term net github.com/cilium/ebpf", "make demo: namespaces, traffic, and a question"},
	{"internal/callgraph", "./answers/graph ./internal/script ./ir ./lang/... ./probe/... ./kernel ./kernel/live ./tracefs ./traceevent ./usersym ./debuginfo/... ./internal/feature ./internal/diag ./internal/lease " + sys, "trace graph: runs the kernel's tracer or probes, whose program is in the language, and draws what they say"},
	{"internal/memlock", "golang.org/x/sys/unix", "changes a limit of the process"},
	{"internal/netlog", "./oops net os", "netconsole is received and syslog sent over sockets"},
	{"internal/doctor", "./netstate/rdma ./probe/... ./tracefs ./internal/feature ./internal/diag ./internal/lease ./internal/term ./internal/netns ./ctype/... ./debuginfo/... net " + sys + " " + ebpfCore + " " + ebpfRun, "the doctor looks at the system and tries what it offers"},
	{"internal/golden", "os/... flag testing/... github.com/google/go-cmp/cmp", "goldens are files of tests"},
	{"internal/oracle", "os os/exec testing", "tests find the programs that they compare with"},
	{"internal/chromium", "./internal/oracle os os/exec testing", "tests look at pages in a browser"},
	{"internal/hostile", "os testing/...", "tests give parsers bytes that they do not expect, as often as they are told"},
	{"internal/ktest/...", "./internal/netns github.com/vishvananda/netlink", "namespaces to test in"},
	{"internal/ktest/...", "./internal/oracle ./lab/... ./probe/try ./internal/feature ./internal/bin testing/... flag net go/... " + sys + " " + ebpfCore + " " + ebpfRun, "tests in kernels: reads test sources, boots guests, looks for leaks"},
	{"internal/arch", "go/...", "reads the imports of the tree"},
	{"internal/gen/...", "./... os/... go/... flag log", "generators run on the developer's machine"},
	{"internal/gen/bench internal/gen/insns", "net syscall golang.org/x/sys/unix github.com/cilium/ebpf " + ebpfCore + " github.com/cilium/ebpf/link", "measures processes: time, memory, system calls; connections; and BPF programs by the kernel's statistics"},
	{"internal/gen/deaths", "golang.org/x/sys/unix", "reads the kernel's log and kills the first process, in a guest"},
	{"examples/...", "./... os/... log flag", "examples are programs of users"},
	{"examples/exchange examples/strategy", "net " + sys, "they are programs that talk"},
}

// Bans cut pieces out of the wide rows.
var Bans = []Ban{
	{compiler, "os os/exec net " + rtnl + " github.com/cilium/ebpf/link golang.org/x/sys/...", "the compiler touches no system (rule 1)"},
	{"lang/syntax ctype", "./...", "the bottom of the tree imports nothing of ours"},
	{"kernel kernel/unwind kernel/walk kernel/cexpr kernel/ftrace", ourBackends, "analysis does not know whether the kernel lives (rule 3)"},
	{answers, "./answers/... ./lang/...", "answers import neither each other nor the text side (rule 5)"},
	{"lab/...", "./answers/... ./internal/cli/...", "the lab runs the binary, not its packages (rule 5)"},
	{"internal/script internal/demo internal/gen/... examples/...", "./internal/cli/...", "nobody imports cli (rule 5)"},
}
