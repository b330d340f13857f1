package live

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/kernel"
)

// Kcore is the running kernel's memory, through /proc/kcore.
type Kcore struct {
	file *os.File
	segs []*elf.Prog
}

var _ kernel.Memory = (*Kcore)(nil)

// Kcore opens the kernel's memory. It needs root, and is a [feature.ErrUnsupported] where the kernel is locked down or was
// built without CONFIG_PROC_KCORE. The caller closes it.
func (l *Live) Kcore() (*Kcore, error) {
	name := l.o.Proc + "/kcore"
	f, err := os.Open(name)
	if err != nil {
		return nil, feature.Unsupported("kcore", "open "+name, err)
	}
	e, err := elf.NewFile(f)
	if err != nil {
		f.Close()
		return nil, feature.Unsupported("kcore", "read "+name, err)
	}
	k := &Kcore{file: f}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD {
			k.segs = append(k.segs, p)
		}
	}
	return k, nil
}

// errNoMemory is an address at which the kernel has no memory.
var errNoMemory = errors.New("no segment of /proc/kcore has it")

// ReadVirt implements [kernel.Memory].
func (k *Kcore) ReadVirt(p []byte, addr uint64) error {
	for _, s := range k.segs {
		if addr < s.Vaddr || addr-s.Vaddr >= s.Memsz || uint64(len(p)) > s.Memsz-(addr-s.Vaddr) {
			continue
		}
		if _, err := k.file.ReadAt(p, int64(s.Off+(addr-s.Vaddr))); err != nil {
			return &kernel.FaultError{Addr: addr, Err: fmt.Errorf("read /proc/kcore: %w", err)}
		}
		return nil
	}
	return &kernel.FaultError{Addr: addr, Err: errNoMemory}
}

// Close closes the file.
func (k *Kcore) Close() error { return k.file.Close() }
