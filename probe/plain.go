package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
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

// loadPlain loads a program with no more than the kernel needs; an error of any kind says that the library is to be asked. It
// does not know how to say which function a program is for.
func (s *Session) loadPlain(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	attr := progLoad{typ: uint32(spec.Type), attach: uint32(spec.AttachType)}
	if spec.Type == ebpf.Tracing {
		return nil, fmt.Errorf("load %s program plainly: %w", spec.Type, ebpf.ErrNotSupported)
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
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(insns) // the kernel has read both
	runtime.KeepAlive(license)
	runtime.KeepAlive(spec) // and knows its maps
	if errno != 0 {
		return nil, errno
	}
	return ebpf.NewProgramFromFD(int(fd))
}
