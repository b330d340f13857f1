package guest

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Accel is how QEMU executes a guest, in the words of its -accel option.
type Accel string

// The accelerators. Emulation runs one thread for all of a guest's CPUs unless told otherwise: with several, a guest that
// patches its own text (function tracer with kprobes and fprobes) has panicked, and the tests do little else.
const (
	KVM      Accel = "kvm"
	TCG      Accel = "tcg,thread=single"
	TCGMulti Accel = "tcg,thread=multi"
)

// ParseAccel reads what people put into FATHOM_ACCEL: kvm, tcg, "tcg,thread=multi"; "" is [BestAccel].
func ParseAccel(s string) (Accel, error) {
	switch {
	case s == "":
		return BestAccel(), nil
	case s == "tcg":
		return TCG, nil
	case s == "kvm" || strings.HasPrefix(s, "tcg,"):
		return Accel(s), nil
	}
	return "", fmt.Errorf("accelerator %q: there are kvm, tcg and tcg,thread=multi", s)
}

// kvmCreateVM is KVM_CREATE_VM (linux/kvm.h).
const kvmCreateVM = 0xae01

// BestAccel is KVM if this process can make a virtual machine with it, else emulation.
func BestAccel() Accel {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return TCG
	}
	defer f.Close()
	fd, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		return TCG
	}
	unix.Close(fd)
	return KVM
}
