package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bpf/gen"
)

// progLoad is the part of union bpf_attr for BPF_PROG_LOAD that is used here (include/uapi/linux/bpf.h).
type progLoad struct {
	typ, count     uint32
	insns, license uint64
	logLevel       uint32
	logSize        uint32
	log            uint64
	version, flags uint32
	name           [unix.BPF_OBJ_NAME_LEN]byte
	ifindex        uint32
	attach         uint32
	btf            uint32
	funcSize       uint32
	funcs          uint64
	funcCount      uint32
	lineSize       uint32
	lines          uint64
	lineCount      uint32
	attachID       uint32
}

// loadTries is how often a program is given to a verifier that stops for signals.
const loadTries = 10

// loadPlain loads a program with no more than the kernel needs; an error of any kind says that the library is to be asked. Of
// programs that are for one function it knows those for the kernel's own: the library would read all of its types for one.
func loadPlain(w *World, spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	attr := progLoad{typ: uint32(spec.Type), attach: uint32(spec.AttachType)}
	if spec.Type == ebpf.Tracing {
		if spec.AttachTarget != nil || spec.AttachType != ebpf.AttachTraceFEntry && spec.AttachType != ebpf.AttachTraceFExit {
			return nil, fmt.Errorf("load %s program plainly: %w", spec.Type, ebpf.ErrNotSupported)
		}
		id, err := w.KfuncID(spec.AttachTo)
		if err != nil {
			return nil, err
		}
		attr.attachID = uint32(id)
	}
	var code bytes.Buffer
	if err := spec.Instructions.Marshal(&code, binary.LittleEndian); err != nil {
		return nil, err
	}
	license := append([]byte(spec.License), 0)
	copy(attr.name[:len(attr.name)-1], spec.Name)
	attr.count = uint32(code.Len() / 8) // sizeof(struct bpf_insn)
	insns := code.Bytes()
	attr.insns, attr.license = uint64(uintptr(unsafe.Pointer(&insns[0]))), uint64(uintptr(unsafe.Pointer(&license[0])))
	fd, errno := uintptr(0), unix.EAGAIN
	for try := 0; errno == unix.EAGAIN && try < loadTries; try++ { // a signal came, which Go's scheduler sends, too
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	runtime.KeepAlive(insns) // the kernel has read both
	runtime.KeepAlive(license)
	runtime.KeepAlive(spec) // and knows its maps
	if errno != 0 {
		return nil, errno
	}
	return ebpf.NewProgramFromFD(int(fd))
}

// Loads says if the kernel takes a program for t, a function of its own (fentry, fexit), by giving it one that does nothing.
func (w *World) Loads(t Target) error {
	typ, at, ok := gen.ProgramType(t.Provider)
	if !ok || typ != ebpf.Tracing {
		return fmt.Errorf("load program for %s: %w", t.Name, ebpf.ErrNotSupported)
	}
	p, err := loadPlain(w, &ebpf.ProgramSpec{Type: typ, AttachType: at, AttachTo: t.Func, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return fmt.Errorf("load program for %s: %w", t.Name, err)
	}
	return p.Close()
}
