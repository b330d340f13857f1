package guest

import (
	"context"
	"fmt"
	"time"
)

// dumpTime bounds a dump: 1 GB takes four seconds.
const dumpTime = 5 * time.Minute

// DumpFormats are the formats of QEMU's dump-guest-memory. A build of QEMU may lack some: its refusal says so.
func DumpFormats() []string { return []string{"elf", "kdump-zlib", "kdump-lzo", "kdump-snappy"} }

// Dump writes the guest's memory to a file that must not need the guest to be readable: QEMU writes it. The guest stands
// still meanwhile.
func (g *Guest) Dump(ctx context.Context, file, format string) error {
	args := map[string]any{"paging": false, "protocol": "file:" + file, "format": format}
	if _, err := g.qmp.Execute(ctx, "dump-guest-memory", args); err != nil {
		return fmt.Errorf("dump memory: %w", err)
	}
	return nil
}

// dumpDevices adds what a dump on panic needs.
func (o *Options) dumpDevices() error {
	if o.DumpOnPanic == "" {
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
	// QEMU waits in state guest-panicked for the dump instead of ending. The guest's own panic= would reset it meanwhile.
	o.QEMUArgs = append(o.QEMUArgs, "-device", "pvpanic", "-device", "vmcoreinfo", "-action", "panic=pause")
	return nil
}

// dumpOnPanic waits for the device's event, writes the dump, and ends QEMU.
func (g *Guest) dumpOnPanic() {
	for e := range g.qmp.Events() {
		if e.Name != "GUEST_PANICKED" {
			continue
		}
		ctx, cancel := context.WithTimeout(g.ctx, dumpTime)
		err := g.Dump(ctx, g.opts.DumpOnPanic, "elf")
		cancel()
		g.dumpErr.Store(&err)
		g.Quit()
		return
	}
}
