package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/modules"
)

func labModuleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "module",
		Short: "Kernel modules to learn from: build, load, unload",
		Long: `Build kernel modules against the headers of a kernel, and load them into guests: those that come along, and your own.

Examples:
  fathom lab module list
  fathom lab module load events g && fathom lab exec g -- sh -c 'echo 3 > /proc/fathom_events'
  fathom lab module load ./mydriver g debug=1`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error { return c.Help() },
	}
	c.AddCommand(moduleListCommand(), moduleBuildCommand(), moduleLoadCommand(), moduleUnloadCommand())
	return c
}

func moduleListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the modules that come along", Args: cobra.NoArgs,
		Long: `List the kernel modules that come along, each with what there is to learn from it.

Examples:
  fathom lab module list
  fathom lab module list | grep timer
  fathom lab module build $(fathom lab module list | cut -d' ' -f1)`,
		RunE: func(c *cobra.Command, args []string) error {
			tw := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			for _, m := range modules.List() {
				fmt.Fprintf(tw, "%s\t%s\n", m.Name, m.Doc)
			}
			return tw.Flush()
		},
	}
}

func moduleBuildCommand() *cobra.Command {
	var kernel, folder, out string
	c := &cobra.Command{
		Use:   "build NAME|FOLDER…",
		Short: "Build modules",
		Long: `Build modules that come along, or those of folders with a Kbuild file, against the headers of a kernel: its build tree,
what is installed for it, or Debian's headers, downloaded once. Takes make and gcc.

Examples:
  fathom lab module build echo
  fathom lab module build --kernel debian-6.1 bugs late -o /tmp
  fathom lab module build --kernel ~/linux ./mydriver`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cache, k, err := findKernel(c.Context(), kernel, folder)
			if err != nil {
				return bootError("build modules", err)
			}
			for _, arg := range args {
				files, err := buildModule(c.Context(), cache, k, arg)
				if err != nil {
					return err
				}
				for _, f := range files {
					if out != "" {
						if f, err = copyFile(f, filepath.Join(out, filepath.Base(f))); err != nil {
							return err
						}
					}
					fmt.Println(f)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&kernel, "kernel", "debian-6.12", "`KERNEL`, as lab boot takes it")
	c.Flags().StringVar(&folder, "modules", "", "`FOLDER` of a bzImage's modules")
	c.Flags().StringVarP(&out, "output", "o", "", "copy the modules to this `FOLDER`")
	return c
}

func findKernel(ctx context.Context, kernel, folder string) (guest.Cache, guest.Kernel, error) {
	cache, err := guest.UserCache()
	if err != nil {
		return cache, guest.Kernel{}, err
	}
	k, err := cache.Find(ctx, kernel, folder)
	return cache, k, err
}

// buildModule builds what arg names: a module that comes along, or a folder.
func buildModule(ctx context.Context, cache guest.Cache, k guest.Kernel, arg string) ([]string, error) {
	what := "build module " + arg
	own := modules.Has(arg)
	if st, err := os.Stat(arg); !own && (err != nil || !st.IsDir()) {
		var names []string
		for _, m := range modules.List() {
			names = append(names, m.Name)
		}
		return nil, &diag.Error{What: what, Because: "there is no such folder, and the modules that come along are " + strings.Join(names, ", "), Code: diag.ExitNoInput}
	}
	headers, err := cache.BuildDir(ctx, k)
	if err != nil {
		return nil, bootError(what, err)
	}
	var files []string
	if own {
		var file string
		file, err = modules.Build(ctx, arg, headers, filepath.Join(cache.Dir, "modules", k.Release, arg))
		files = []string{file}
	} else {
		files, err = modules.BuildDir(ctx, headers, arg)
	}
	var b *modules.BuildError
	if errors.As(err, &b) {
		fmt.Fprint(os.Stderr, b.Output)
		return nil, &diag.Error{What: what, Because: b.Error(), Err: err, Try: []string{"apt-get install make gcc-12", "make -C " + headers + " M=" + b.Dir + " modules"}}
	}
	return files, err
}

func copyFile(src, dst string) (string, error) {
	in, err := os.Open(src)
	if err != nil {
		return "", err
	}
	defer in.Close()
	f, err := os.Create(dst)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, in)
	return dst, errors.Join(err, f.Close())
}

func moduleLoadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "load NAME|FOLDER|FILE.ko GUEST [PARAM=VALUE…]",
		Short: "Build a module if need be and load it into a guest",
		Long: `Load a module into a guest, with what it depends on: one that comes along, one of a folder, which is built first, or a file.
A module that was built for another kernel is refused with what differs: a field of vermagic, a symbol's version, a struct.

Examples:
  fathom lab module load bugs g
  fathom lab module load reflect g set_net=0
  fathom lab module load ./josh.ko g`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			what := "load module " + args[0]
			g, err := findGuest(what, args[1])
			if err != nil {
				return err
			}
			files := args[:1]
			if !strings.HasSuffix(args[0], ".ko") {
				cache, err := guest.UserCache()
				if err != nil {
					return err
				}
				if files, err = buildModule(c.Context(), cache, g.Info.Kernel, args[0]); err != nil {
					return err
				}
			}
			for _, f := range files {
				mods, unchecked, err := g.Info.Kernel.OwnModule(f)
				if err != nil {
					return bootError(what, err)
				}
				if unchecked != nil {
					fmt.Fprintf(os.Stderr, "fathom: %s was not compared with the kernel's types: %v\n", f, unchecked)
				}
				for i, m := range mods {
					params := ""
					if i == len(mods)-1 {
						params = strings.Join(args[2:], " ")
					}
					err := g.Load(c.Context(), m.Name, strings.NewReader(string(m.ELF)), params)
					if err != nil && (i == len(mods)-1 || !strings.Contains(err.Error(), syscall.EEXIST.Error())) {
						e := &diag.Error{What: "load module " + m.Name, Because: err.Error(), Err: err}
						if strings.Contains(err.Error(), syscall.EEXIST.Error()) {
							e.Because, e.Try = "it is loaded", []string{"fathom lab module unload " + m.Name + " " + args[1]}
						}
						return e
					}
				}
			}
			return nil
		},
	}
}

func moduleUnloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unload NAME GUEST",
		Short: "Unload a module of a guest",
		Long: `Unload a module of a guest that lab boot keeps: one that comes along by its short name, any other by the kernel's.

Examples:
  fathom lab module unload events g
  fathom lab module unload veth g
  fathom lab exec g -- cat /proc/modules; fathom lab module unload mydriver g`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			g, err := findGuest("unload module "+args[0], args[1])
			if err != nil {
				return err
			}
			name := args[0]
			if modules.Has(name) {
				name = "fathom_" + name
			}
			return wrap("unload module "+name, g.Unload(c.Context(), name))
		},
	}
}
