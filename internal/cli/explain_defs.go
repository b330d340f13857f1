package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/explain/defs"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/try"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
	"github.com/fathom-trace/fathom/usersym"
)

// defsFlags are what the commands that explain names have in common.
type defsFlags struct {
	tree string
	json bool
}

func (f *defsFlags) add(c *cobra.Command, tree bool) *cobra.Command {
	c.Args = cobra.MinimumNArgs(1)
	c.Flags().BoolVarP(&f.json, "json", "j", false, "one JSON object a line")
	if tree {
		c.Flags().StringVar(&f.tree, "tree", "", "find the definition in the source tree in this `FOLDER`, too")
	}
	return c
}

// print writes an answer as text or as JSON with its kind.
func (f *defsFlags) print(kind string, answer any, text func(io.Writer) error) error {
	w := bufio.NewWriter(os.Stdout)
	if !f.json {
		return errors.Join(text(w), w.Flush())
	}
	b, err := jsonl.Line(answer)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `{"type":%q,%s`, kind, b[1:]) // an answer is an object with members
	return errors.Join(err, w.Flush())
}

// each explains every name, and fails at the first that means nothing.
func each(what string, names []string, explain func(name string) error) error {
	for i, n := range names {
		if i > 0 {
			fmt.Println()
		}
		if err := explain(n); err != nil {
			var told *diag.Error
			if errors.As(err, &told) {
				return err
			}
			if errors.Is(err, defs.ErrUnknown) || errors.Is(err, ctype.ErrNotFound) {
				err = diag.NoInput("explain "+what+" "+n, err)
			}
			return wrap("explain "+what+" "+n, err)
		}
	}
	return nil
}

// running is the kernel that runs, as package defs wants it.
type running struct {
	defs.Source
	live  *live.Live
	users *usersym.Resolver
	world *probe.World
	fs    *tracefs.FS
	made  map[string][]string // what the compiler made of functions; nil if nobody asked
}

// openRunning reads what there is to read; what this user may not read is left out.
func openRunning(tree string) (*running, error) {
	l, err := live.Open(live.Options{})
	if err != nil {
		return nil, err
	}
	r := &running{live: l, users: usersym.New(usersym.Options{}), Source: defs.Source{Arch: runtime.GOARCH}}
	r.world = probe.NewWorld(l, r.users, 0)
	if types, err := l.Types(); err == nil {
		r.Types = types
	}
	if _, err := l.Kallsyms(); err == nil {
		r.Symbol, r.Parts, r.Against = r.symbol, r.parts, r.against
	}
	if fs, err := tracefs.Find(); err == nil {
		r.fs, r.Format = &fs, r.format
	}
	if os.Geteuid() == 0 {
		r.Works = works
	}
	if tree != "" {
		if st, err := os.Stat(tree); err != nil || !st.IsDir() {
			return nil, errors.Join(r.Close(), diag.NoInput("open source tree "+tree, cmp.Or(err, errors.New("it is no folder"))))
		}
		r.Tree = os.DirFS(tree)
	}
	return r, nil
}

func (r *running) Close() error {
	errs := []error{r.world.Close(), r.users.Close(), r.live.Close()}
	if r.fs != nil {
		errs = append(errs, r.fs.Close())
	}
	return errors.Join(errs...)
}

func (r *running) symbol(name string) (module string, ok bool) {
	ks, err := r.live.Kallsyms()
	if err != nil {
		return "", false
	}
	for s := range ks.Named(name) {
		if s.IsText() {
			return s.Module, true
		}
	}
	return "", false
}

// parts finds the symbols that begin with a name and a dot, in one pass for all names.
func (r *running) parts(name string) []string {
	if r.made == nil {
		r.made = map[string][]string{}
		ks, err := r.live.Kallsyms()
		if err != nil {
			return nil
		}
		for s := range ks.Text() {
			for i := range len(s.Name) {
				if s.Name[i] == '.' {
					r.made[s.Name[:i]] = append(r.made[s.Name[:i]], s.Name)
				}
			}
		}
	}
	out := r.made[name]
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *running) against(name string) (why string, instead []string, kprobes bool) {
	w := r.world.WhyNot("", name)
	if w == nil {
		return "", nil, false
	}
	return w.Text, w.Instead, !w.Probeable()
}

func (r *running) format(system, name string) (*traceevent.Format, error) {
	return format(*r.fs, tracefs.Event{System: system, Name: name})
}

// works tries a way to attach.
func works(w defs.Way) error {
	features := map[defs.Way]try.Feature{defs.Tracepoint: try.Tracepoint, defs.Raw: try.RawTracepoint, defs.Fentry: try.Fentry, defs.Kprobe: try.Kprobe}
	if err := try.Detect(features[w]); err != nil {
		return errors.New(feature.WithoutHints(err.Error()))
	}
	return nil
}

func explainStructCommand() *cobra.Command {
	var f defsFlags
	var of string
	c := f.add(&cobra.Command{
		Use:   "struct NAME… [--of KERNEL]",
		Short: "How a struct, union or enum of the kernel lies in memory: offsets, sizes, holes",
		Long: `Show a struct or union with the offset and size of each member, the holes between them and where lines of the cache begin,
as pahole does, from the kernel's own types (BTF): of the one that runs, or of a dump. Of an enum the values are shown, of a
typedef what it stands for.

Examples:
  fathom explain struct sk_buff
  fathom explain struct 'enum skb_drop_reason'
  fathom explain struct task_struct --of /var/crash/dump`,
		RunE: func(c *cobra.Command, args []string) error {
			types, done, err := typesOf(of)
			if err != nil {
				return err
			}
			defer done()
			return each("struct", args, func(name string) error { return f.structure(types, name) })
		},
	}, false)
	c.Flags().StringVar(&of, "of", "", "`KERNEL`: a dump; the one that runs if it is not given")
	return c
}

// typesOf gives the types of the running kernel, or of a dump.
func typesOf(dump string) (types ctype.Lookup, done func(), err error) {
	if dump != "" {
		t, _, done, err := openDump(dump, nil)
		if err != nil {
			return nil, nil, err
		}
		return t.Types(), done, nil
	}
	l, err := live.Open(live.Options{})
	if err != nil {
		return nil, nil, err
	}
	ts, err := l.Types()
	if err != nil {
		return nil, nil, errors.Join(wrap("read the kernel's types", err), l.Close())
	}
	return ts, func() { l.Close() }, nil
}

func (f *defsFlags) structure(types ctype.Lookup, name string) error {
	kind := ctype.Any
	for word, k := range map[string]ctype.Kind{"struct ": ctype.KindStruct, "union ": ctype.KindUnion, "enum ": ctype.KindEnum} {
		if rest, ok := strings.CutPrefix(name, word); ok {
			name, kind = strings.TrimSpace(rest), k
		}
	}
	t, err := types.ByName(kind, name)
	if err != nil {
		return err
	}
	if d, ok := t.(*ctype.Typedef); ok && !f.json {
		fmt.Printf("typedef %s;\n", defs.Declare(d.Type, d.Name))
		t = ctype.Strip(t)
	}
	switch t := ctype.Strip(t).(type) {
	case *ctype.Struct:
		l := defs.NewLayout(t)
		return f.print("struct", l, l.Text)
	case *ctype.Enum:
		return f.print("enum", t, func(w io.Writer) error { return defs.Enum(w, t) })
	default:
		return f.print("type", map[string]any{"name": name, "is": defs.Declare(t, ""), "size": ctype.Size(t)}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s: %s, %d bytes\n", name, defs.Declare(t, ""), ctype.Size(t))
			return err
		})
	}
}

func explainSyscallCommand() *cobra.Command {
	var f defsFlags
	var asm bool
	c := f.add(&cobra.Command{
		Use:   "syscall NAME|NUMBER… [--asm] [--tree FOLDER]",
		Short: "A system call: number, registers, arguments, its way into the kernel, what to probe",
		Long: `Tell of a system call: its number, which register has what, the arguments with their types, the functions on its way into
the kernel, and what can be attached to, with what that costs. --tree finds its SYSCALL_DEFINE in a source tree.

Examples:
  fathom explain syscall read
  fathom explain syscall sendto --asm
  fathom explain syscall openat --tree ~/linux`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := openRunning(f.tree)
			if err != nil {
				return err
			}
			defer r.Close()
			return each("system call", args, func(name string) error {
				s, err := r.Syscall(name)
				if err != nil {
					return err
				}
				return f.print("syscall", s, func(w io.Writer) error { return s.Text(w, asm) })
			})
		},
	}, true)
	c.Flags().BoolVar(&asm, "asm", false, "show the instructions of a program that makes the call")
	return c
}

func explainFunctionCommand() *cobra.Command {
	var f defsFlags
	return f.add(&cobra.Command{
		Use:   "function NAME… [--tree FOLDER]",
		Short: "A function of the kernel: prototype, module, whether it can be traced, and by what",
		Long: `Tell of a function: its prototype by BTF, the module it is in, whether it can be traced or why not and what to trace in its
place, what the compiler made of it, and by which probes it is reached here, with what they cost and how long they last.

Examples:
  fathom explain function vfs_read
  fathom explain function tcp_v4_rcv -j
  fathom explain function ip_rcv --tree ~/linux`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := openRunning(f.tree)
			if err != nil {
				return err
			}
			defer r.Close()
			return each("function", args, func(name string) error {
				x, err := r.Function(name)
				if err != nil {
					return err
				}
				return f.print("function", x, x.Text)
			})
		},
	}, true)
}

func explainTracepointCommand() *cobra.Command {
	var f defsFlags
	return f.add(&cobra.Command{
		Use:   "tracepoint SYSTEM:NAME…",
		Short: "A tracepoint: its fields, how it is printed, its raw arguments, what to probe",
		Long: `Tell of a tracepoint: its fields with their places in the record, how the kernel prints it, the arguments that a raw
tracepoint sees, and by which probes it is reached here, with what they cost and how long they last. Names of LTTng's are
understood, and names without their system.

Examples:
  fathom explain tracepoint skb:kfree_skb
  fathom explain tracepoint sched_switch
  fathom explain tracepoint net_if_receive_skb -j`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := openRunning("")
			if err != nil {
				return err
			}
			defer r.Close()
			return each("tracepoint", args, func(name string) error {
				if r.fs == nil {
					_, err := tracefs.Find()
					return err
				}
				es, err := r.fs.Select(name)
				if err != nil {
					return eventError("fathom explain tracepoint", name, err)
				}
				for _, e := range es {
					x, err := r.Event(e.System, e.Name)
					if err == nil {
						err = f.print("tracepoint", x, x.Text)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}, false)
}

func explainErrnoCommand() *cobra.Command {
	var f defsFlags
	return f.add(&cobra.Command{
		Use:   "errno NAME|NUMBER…",
		Short: "An error number: its name, what it means, and whether programs ever see it",
		Long: `Tell the name, the number and the meaning of an errno. Those from 512 on are the kernel's own: programs do not see them,
but traces and return values of functions have them.

Examples:
  fathom explain errno 105
  fathom explain errno ENOBUFS EPROBE_DEFER
  fathom explain errno -j -- -512`,
		RunE: func(c *cobra.Command, args []string) error {
			return each("errno", args, func(name string) error {
				e, ok := defs.NewErrno(name)
				if !ok {
					return defs.ErrUnknown
				}
				return f.print("errno", e, func(w io.Writer) error {
					seen := ""
					if e.Inside {
						seen = " (within the kernel only)"
					}
					_, err := fmt.Fprintf(w, "%s = %d: %s%s\n", e.Name, e.Number, e.Text, seen)
					return err
				})
			})
		},
	}, false)
}

func explainDropCommand() *cobra.Command {
	var f defsFlags
	return f.add(&cobra.Command{
		Use:   "drop REASON|NUMBER…",
		Short: "A reason why the kernel drops packets, in words",
		Long: `Tell what a drop reason means, by its name, with or without SKB_DROP_REASON_, or by its number, which is another in every
kernel. Which object was to blame for a packet that was lost, fathom packet says.

Examples:
  fathom explain drop NETFILTER_DROP
  fathom explain drop SKB_DROP_REASON_IP_RPFILTER
  fathom explain drop 3 -j`,
		RunE: func(c *cobra.Command, args []string) error {
			var src defs.Source
			if types, done, err := typesOf(""); err == nil {
				defer done()
				src.Types = types
			}
			return each("drop reason", args, func(name string) error {
				d, err := src.Drop(name)
				if err != nil {
					return err
				}
				return f.print("drop", d, d.Line)
			})
		},
	}, false)
}

func explainProbeCommand() *cobra.Command {
	var f defsFlags
	return f.add(&cobra.Command{
		Use:   "probe NAME…",
		Short: "Which probe to take: what reaches a function, a system call or a tracepoint, and at what price",
		Long: `List every way to attach to something, with whether it works on this kernel, what a program sees there, what it costs, and how
long one can count on it.

Examples:
  fathom explain probe sys_read
  fathom explain probe kprobe:tcp_v4_rcv
  fathom explain probe skb:kfree_skb -j`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := openRunning("")
			if err != nil {
				return err
			}
			defer r.Close()
			return each("probe", args, func(name string) error {
				x, err := r.Probes(name)
				if err != nil {
					return err
				}
				return f.print("probes", x, x.Text)
			})
		},
	}, false)
}
