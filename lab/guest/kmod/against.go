package kmod

import (
	"bytes"
	"debug/elf"
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
)

// Types are a kernel's types as a module is compared with them: all of a name, as files that do not know each other may
// have several.
type Types interface {
	AllByName(kind ctype.Kind, name string) []ctype.Type
}

// Layouts compares the structs and unions that a module took from the kernel's headers, by its debug information, with those
// that a kernel has. It gives how many it compared, at most most differences, and how many structs differ in all.
func Layouts(module []byte, kernel Types, most int) (compared, differ int, diff []Mismatch, err error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return 0, 0, nil, fmt.Errorf("read module: %w", err)
	}
	structs, err := headerStructs(f)
	if err != nil {
		return 0, 0, nil, err
	}
	k := &Kernel{types: kernel}
	for _, s := range structs {
		same := k.named(s)
		if len(same) == 0 {
			continue // only the module's file has it
		}
		compared++
		if d := compareStruct(s, same); len(d) > 0 {
			differ++
			diff = append(diff, d[:min(len(d), max(0, most-len(diff)))]...)
		}
	}
	return compared, differ, diff, nil
}

// Types are the kernel's.
func (k *Kernel) Types() Types { return k.types }
