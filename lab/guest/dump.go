package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// dumpTime bounds a dump: 1 GB takes four seconds.
const dumpTime = 5 * time.Minute

// DumpFormats asks QEMU in which formats it can dump: elf, and those of kdump that it was built with.
func (g *Guest) DumpFormats(ctx context.Context) ([]string, error) {
	b, err := g.qmp.Execute(ctx, "query-dump-guest-memory-capability", nil)
	if err != nil {
		return nil, fmt.Errorf("dump memory: %w", err)
	}
	var caps struct{ Formats []string }
	if err := json.Unmarshal(b, &caps); err != nil {
		return nil, fmt.Errorf("dump memory: %w", err)
	}
	return caps.Formats, nil
}

// DumpOptions say how memory is dumped.
type DumpOptions struct {
	Format string // of [Guest.DumpFormats]; elf if empty
	Paging bool   // elf only: with the virtual addresses of the CPUs' page tables
	Begin  uint64 // with Length: only this physical memory; elf only
	Length uint64
}

// Dump writes the guest's memory to a file that must not need the guest to be readable: QEMU writes it. The guest stands
// still meanwhile. A file that a failed dump made is removed.
func (g *Guest) Dump(ctx context.Context, file string, o DumpOptions) error {
	args := map[string]any{"paging": o.Paging, "protocol": "file:" + file}
	if o.Format != "" && o.Format != "elf" {
		args["format"] = o.Format
	}
	if o.Length != 0 {
		args["begin"], args["length"] = o.Begin, o.Length
	}
	if o.Format != "" {
		formats, err := g.DumpFormats(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(formats, o.Format) {
			return &SetupError{What: "dump memory as " + o.Format, Because: "this QEMU has " + strings.Join(formats, ", ")}
		}
	}
	_, before := os.Lstat(file)
	if _, err := g.qmp.Execute(ctx, "dump-guest-memory", args); err != nil {
		if errors.Is(before, fs.ErrNotExist) {
			os.Remove(file)
		}
		return fmt.Errorf("dump memory: %w", err)
	}
	return nil
}

// dumpDevices adds what a dump on panic needs.
func (o *Options) dumpDevices() error {
	if o.DumpOnPanic == "" && !o.Serve {
		return nil
	}
	dir, err := o.Kernel.Modules()
	if err != nil {
		return err
	}
	for _, m := range []string{"qemu_fw_cfg", "pvpanic", "pvpanic_mmio"} {
		if dir.Has(m) {
			o.Modules = append(o.Modules, m)
		}
	}
	// Neither QEMU nor the guest may act on the panic: the device is told of it before the kernel has said all it has to
	// say. What is said in an NMI, such as the end of a stack, comes only then.
	o.QEMUArgs = append(o.QEMUArgs, "-device", "pvpanic", "-device", "vmcoreinfo", "-action", "panic=none")
	if dir.Has("pvpanic") {
		o.Append = append([]string{"panic=0"}, o.Append...)
	}
	return nil
}

// onPanic waits for the device's event, writes the dump that was asked for, and ends QEMU unless the guest is to stay.
func (g *Guest) onPanic() {
	for e := range g.qmp.Events() {
		if e.Name != "GUEST_PANICKED" {
			continue
		}
		g.Patient() // the dead are silent
		g.lastWords()
		if g.opts.DumpOnPanic != "" {
			ctx, cancel := context.WithTimeout(g.ctx, dumpTime)
			err := g.dumpWhole(ctx, g.opts.DumpOnPanic)
			cancel()
			g.dumpErr.Store(&err)
		}
		close(g.panicked)
		if !g.opts.Serve {
			g.Quit()
		}
		return
	}
}

// lastWords waits until the console is silent, and stops the guest.
func (g *Guest) lastWords() {
	const silent, most = 300 * time.Millisecond, 5 * time.Second
	for deadline := time.Now().Add(most); time.Now().Before(deadline); time.Sleep(silent / 3) {
		if last := g.console.last.Load(); last != 0 && time.Since(time.Unix(0, last)) > silent {
			break
		}
	}
	ctx, cancel := context.WithTimeout(g.ctx, dumpTime)
	defer cancel()
	g.qmp.Execute(ctx, "stop", nil) // fails if the guest is over
}

// dumpWhole dumps to a file that has its name only when it is whole.
func (g *Guest) dumpWhole(ctx context.Context, file string) error {
	part := file + ".part"
	if err := g.Dump(ctx, part, DumpOptions{}); err != nil {
		return err
	}
	return os.Rename(part, file)
}
