package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/examples"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/doctor"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/record"
)

// traceFlags are bpftrace's, and some of ours.
type traceFlags struct {
	program    []string
	list       bool
	verbose    bool
	dwarfPIDs  []string
	pid        string
	command    string
	output     string
	format     string
	buffering  string
	quiet      bool
	debug      []string
	dryRun     bool
	fix        bool
	unsafe     bool
	info       bool
	forTime    time.Duration
	failures   bool
	strict     bool
	noWarnings bool
	filter     string
	traceable  string
	headers    script.Headers
	debugInfo  []string
	mode       string
	test       bool
	bench      bool
	showVer    bool
	format_    bool
	on         deadFlags // --on, --part, --guest
	hosts      hostFlags
}

func traceCommand(name string) *cobra.Command {
	f := &traceFlags{}
	c := &cobra.Command{
		Use:   name + " [flags] FILE|-e PROGRAM [args] [-- --name=value]",
		Short: "Run a program in the bpftrace language on this kernel",
		Long: `Run a program in the bpftrace language on this kernel, list probes, or show what a program compiles to. With --on, a
recording is asked (tracepoint: programs run over its events) or the kernel in a crash dump (iter:task … run over its objects).
bpftrace's other flags (--bench --test --info --usdt-file-activation --traceable-functions) are taken too.

Examples:
  fathom trace -e 'tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }' --for 5s
  fathom trace -lv 'tracepoint:syscalls:sys_enter_read'
  fathom trace --on /var/crash/dump -e 'iter:task { @[comm] = count(); }'`,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, name, args) },
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.program, "program", "e", nil, "the program `TEXT`")
	fl.BoolVarP(&f.list, "list", "l", false, "list probes, or with a type's name its members")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "say how probes are attached; with -l their arguments")
	fl.StringVarP(&f.pid, "pid", "p", "", "only this `PID`; end when it ends")
	fl.StringArrayVar(&f.dwarfPIDs, "dwarf-pid", nil, "let dw_ustack() unwind process `PID`, as it does those of -p and -c")
	fl.StringVarP(&f.command, "cmd", "c", "", "run `COMMAND`, trace until it ends; its pid is cpid")
	fl.StringVarP(&f.output, "output", "o", "", "write output to `FILE`")
	fl.StringVarP(&f.format, "format", "f", "text", "output `FORMAT`: text or json")
	fl.BoolP("json", "j", false, "the same as -f json")
	fl.StringVarP(&f.buffering, "buffering", "B", "line", "output buffering `MODE`: line, full or none")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages, only the program's output")
	fl.StringArrayVarP(&f.debug, "debug", "d", nil, "print a `STAGE`: ast, types, ir0, passes, ir, asm, all")
	fl.BoolVar(&f.dryRun, "dry-run", false, "do everything but attach and run")
	fl.BoolVar(&f.fix, "fix", false, "print the program with the proposed rewrites")
	fl.BoolVar(&f.unsafe, "unsafe", false, "allow functions that change the system: signal, system, override")
	fl.BoolVar(&f.info, "info", false, "print what this kernel supports")
	forVar(fl, &f.forTime, "end after this `TIME`, such as 10s")
	fl.BoolVarP(&f.failures, "helper-errors", "k", false, "report helpers that failed, such as reads of bad addresses")
	fl.BoolVar(&f.strict, "strict", false, "exit with 3 if anything was lost, and print the accounts of every program")
	fl.StringArrayVarP(&f.headers.Dirs, "include-dir", "I", nil, "look for C headers in `DIR` first")
	fl.StringArrayVar(&f.headers.Files, "include", nil, "read the C header `FILE` before the program's own C")
	fl.Bool("usdt-file-activation", false, "turn on USDT probes in all processes of a file: the kernel always does")
	fl.StringArrayVar(&f.debugInfo, "debuginfo", nil, "look for debug files of user programs in `PATH` first")
	fl.StringVar(&f.filter, "probe-filter", "", "only attach points that match `REGEX`; begin and end stay")
	fl.StringVar(&f.traceable, "traceable-functions", "", "functions that kprobes may be put on, a line each, are in `FILE`")
	fl.BoolVar(&f.noWarnings, "no-warnings", false, "no warnings about the program")
	fl.StringVar(&f.mode, "mode", "", "run only test or bench probes: `MODE` test or bench")
	fl.BoolVar(&f.test, "test", false, "the same as --mode test")
	fl.BoolVar(&f.bench, "bench", false, "the same as --mode bench")
	fl.BoolVarP(&f.showVer, "version", "V", false, "print the version")
	fl.BoolVar(&f.format_, "fmt", false, "print the program formatted")
	if name != "bpftrace" {
		fl.StringVar(&f.on.file, "on", "", "ask a recording, or the kernel in a crash dump: `FILE`")
		f.hosts.add(fl)
		fl.StringArrayVar(&f.on.parts, "part", nil, "another `FILE` of a split dump; may be repeated")
		fl.StringVar(&f.on.guest, "guest", "", "ask the kernel of the live guest `NAME`, or of a QMP socket, which stands still meanwhile")
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if name == "bpftrace" {
			fmt.Fprint(os.Stderr, peerUsage)
		}
		return usageError{c.CommandPath(), err}
	})
	if name == "bpftrace" {
		c.SetHelpFunc(func(c *cobra.Command, _ []string) {
			fmt.Fprintf(c.OutOrStdout(), "%s\nOPTIONS:\n%s", peerUsage, fl.FlagUsages())
		})
	} else {
		c.AddCommand(traceGraphCommand())
	}
	if name == "trace" {
		for _, old := range []string{"bench", "test", "info", "version", "usdt-file-activation", "traceable-functions"} {
			_ = fl.MarkHidden(old) // the flag is there: it was just added
		}
	}
	return c
}

// style says how diagnostics look on standard error.
func style() diag.Style { return diag.Style{Color: term.Color(term.Auto, os.Stderr, os.Getenv)} }

// peerUsage is how the command line of bpftrace is used.
const peerUsage = `USAGE:
    bpftrace [options] FILE [arguments] [-- --name=value ...]
    bpftrace [options] -e PROGRAM [arguments] [-- --name=value ...]
    bpftrace [options] -               (the program on standard input)
    bpftrace -l [SEARCH|FILE]
`

// peerError is said as bpftrace says it, where scripts may look for the words.
type peerError struct{ msg string }

func (e peerError) Error() string { return e.msg }

// pidMax is PID_MAX_LIMIT (include/linux/threads.h).
const pidMax = 4 << 20

func parsePID(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimLeft(s, "0123456789")
	switch {
	case len(digits) == len(s):
		return 0, peerError{"Failed to parse pid: invalid integer: " + s}
	case digits != "":
		return 0, peerError{"Failed to parse pid: invalid trailing bytes: " + s}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > pidMax {
		return 0, peerError{"Pid out of range: " + s}
	}
	return n, nil
}

func (f *traceFlags) run(c *cobra.Command, name string, args []string) error {
	if j, _ := c.Flags().GetBool("json"); j {
		f.format = "json"
	}
	switch {
	case f.showVer && name == "bpftrace":
		_, err := fmt.Fprintf(c.OutOrStdout(), "bpftrace v0.27.1 (fathom %s)\n", version())
		return err
	case f.info && name == "bpftrace":
		return doctor.WritePeerInfo(c.OutOrStdout(), "v0.27.1 (fathom "+version()+")")
	case f.info:
		return doctorInfo(c.Context(), c.OutOrStdout())
	case f.on.given() && (f.pid != "" || f.command != "" || f.mode != "" || f.test || f.bench):
		return usageError{verbOf(name), errors.New("-p, -c and --mode are about programs that run: --on and --guest ask a kernel that does not")}
	case f.hosts.given() && f.list:
		return usageError{verbOf(name), errors.New("--host: probes are listed on this machine: no -l")}
	case f.format != "text" && f.format != "json":
		return peerError{fmt.Sprintf("Invalid output format \"%s\"\nValid formats: 'text', 'json'", f.format)}
	case f.list:
		return f.listAll(c, args)
	}
	if _, err := parsePID(f.pid); err != nil {
		return err
	}
	if !slices.Contains([]string{"line", "full", "none"}, f.buffering) {
		return usageError{verbOf(name), fmt.Errorf("no buffering mode %q: line, full or none", f.buffering)}
	}
	src, params, err := f.source(name, args, c.Flags().ArgsLenAtDash())
	if err != nil {
		return err
	}
	if f.hosts.given() {
		return f.onHosts(c, src, params)
	}
	if f.format_ {
		return f.printFormatted(c, src)
	}
	o, err := f.options(src, params)
	if err != nil {
		return err
	}
	if f.on.given() {
		done, err := f.openPlace(c, &o)
		if err != nil {
			return err
		}
		defer done()
	}
	if f.output != "" {
		file, err := os.Create(f.output)
		if err != nil {
			return fmt.Errorf("open output: %w", err)
		}
		defer file.Close()
		o.Stdout = file
	}
	if f.fix || len(f.debug) > 0 {
		return f.show(c, o)
	}
	var stop func()
	o.Interrupt, stop = interrupts()
	defer stop()
	usr1 := make(chan os.Signal, 8)
	signal.Notify(usr1, syscall.SIGUSR1)
	defer signal.Stop(usr1)
	o.User1 = usr1
	res, err := script.Run(c.Context(), o)
	var ae *probe.AttachError
	switch {
	case name == "bpftrace" && errors.As(err, &ae):
		return peerError{fmt.Sprintf("%v\nERROR: Unable to attach probe: %s. If this is expected, set the 'missing_probes' config variable to 'warn'.", ae.Err, ae.Target.Name)}
	case err != nil:
		return err
	case res.Code != 0:
		return exitError{res.Code}
	case f.strict && res.Losses() > 0:
		return exitError{exitLost}
	}
	return nil
}

// openPlace opens what is asked in place of the running kernel: a recording, a dump, or a guest.
func (f *traceFlags) openPlace(c *cobra.Command, o *script.Options) (done func(), err error) {
	if f.on.guest == "" && len(f.on.parts) == 0 {
		t, err := record.Open(f.on.file)
		if err == nil {
			o.Recording = t
			return func() { t.Close() }, nil
		}
		st, serr := os.Stat(f.on.file)
		if serr == nil && (st.IsDir() || !errors.Is(err, record.ErrNoRecording)) {
			return nil, viewError(f.on.file, err)
		}
	}
	t, _, done, err := f.on.open(c.Context())
	if err != nil {
		return nil, err
	}
	o.On = t
	return done, nil
}

// verbOf is how the verb is called on a command line: trace, or the whole binary as bpftrace.
func verbOf(name string) string {
	if name == "trace" {
		return "fathom trace"
	}
	return name
}

// source finds the program: -e, a file, or - for standard input; what is left are its parameters.
func (f *traceFlags) source(name string, args []string, dash int) (*syntax.Source, []string, error) {
	if n := len(f.program); n > 0 {
		if name == "bpftrace" { // which keeps the last one only
			f.program = f.program[n-1:]
		}
		return &syntax.Source{Name: "stdin", Text: strings.Join(f.program, "\n")}, args, nil
	}
	if len(args) == 0 || dash == 0 {
		return nil, nil, usageError{verbOf(name), errors.New("give a program: a file, or -e TEXT")}
	}
	if args[0] == "-" {
		b, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, nil, fmt.Errorf("read program: %w", err)
		}
		return &syntax.Source{Name: "stdin", Text: string(b)}, args[1:], nil
	}
	b, err := os.ReadFile(args[0])
	if t, ok := examples.Find(args[0]); ok && errors.Is(err, fs.ErrNotExist) {
		return &syntax.Source{Name: t.Name + ".bt", Text: t.Text}, args[1:], nil
	}
	if err != nil {
		if name == "bpftrace" && errors.Is(err, fs.ErrNotExist) {
			return nil, nil, peerError{fmt.Sprintf("failed to open file '%s': No such file or directory", args[0])}
		}
		return nil, nil, diag.NoInput("read program "+args[0], err)
	}
	return &syntax.Source{Name: args[0], Text: string(b)}, args[1:], nil
}

func (f *traceFlags) options(src *syntax.Source, params []string) (script.Options, error) {
	pid, err := parsePID(f.pid)
	if err != nil {
		return script.Options{}, err
	}
	o := script.Options{
		Traceable: f.traceable, Headers: f.headers, DebugInfo: f.debugInfo, Source: src, Unsafe: f.unsafe, PID: pid, JSON: f.format == "json", Quiet: f.quiet, Verbose: f.verbose, Failures: f.failures,
		Strict: f.strict, DryRun: f.dryRun, NoWarn: f.noWarnings, For: f.forTime, Stdout: os.Stdout, Stderr: os.Stderr,
		Buffering: f.buffering, Mode: f.mode, Notify: os.Getenv("__BPFTRACE_NOTIFY_PROBES_ATTACHED") != "",
		ClockMap: os.Getenv("BPFTRACE_DUMMY_TS_MAP"), Portable: far(),
	}
	for _, p := range f.dwarfPIDs {
		n, err := parsePID(p)
		if err != nil {
			return o, err
		}
		o.FramePIDs = append(o.FramePIDs, n)
	}
	if f.filter != "" {
		if o.Filter, err = regexp.Compile(f.filter); err != nil {
			return o, peerError{fmt.Sprintf("Invalid --probe-filter regex: %v", err)}
		}
	}
	switch {
	case f.test:
		o.Mode = "test"
	case f.bench:
		o.Mode = "bench"
	}
	o.Named = map[string]string{}
	for _, p := range params {
		if n, ok := strings.CutPrefix(p, "--"); ok {
			k, v, has := strings.Cut(n, "=")
			if !has {
				v = "true"
			}
			o.Named[k] = v
			continue
		}
		o.Params = append(o.Params, p)
	}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(k, "BPFTRACE_") {
			continue
		}
		if err := o.Config.Set(k, v); err != nil && check.IsSetting(k) {
			return o, err
		}
	}
	if f.command != "" {
		o.Command = strings.Fields(f.command)
	}
	o.Diags = func(ds []syntax.Diag) { diag.Render(os.Stderr, ds, style()) }
	return o, nil
}

func (f *traceFlags) printFormatted(c *cobra.Command, src *syntax.Source) error {
	file, ds := syntax.Parse(src)
	if len(ds) > 0 {
		diag.Render(os.Stderr, ds, style())
		return script.ErrDiagnosed
	}
	_, err := fmt.Fprint(c.OutOrStdout(), syntax.Format(file))
	return err
}

func (f *traceFlags) show(c *cobra.Command, o script.Options) error {
	w := bufio.NewWriter(c.OutOrStdout())
	defer w.Flush()
	if f.fix {
		return script.Fix(w, o)
	}
	return script.Show(w, o, f.debug)
}
