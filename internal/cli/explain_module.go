package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lab/guest/kmod"
)

// mostLayouts is how many differences of a module are told.
const mostLayouts = 40

// explainModule says if a module fits a kernel, by release and by the layouts of structs.
func explainModule(file, against string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return diag.NoInput("read module", err)
	}
	b, err = kmod.Decompress(b)
	if err != nil {
		return diag.BadInput("read module "+file, err)
	}
	info, err := kmod.Read(b)
	if err != nil {
		return diag.BadInput("read module "+file, err)
	}
	types, release, done, err := kernelTypes(against)
	if err != nil {
		return err
	}
	defer done()
	fits := true
	if built, _, _ := strings.Cut(info.Vermagic, " "); release != "" && built != "" && built != release {
		fmt.Printf("%s was built for %s, the kernel is %s\n", file, built, release)
		fits = false
	}
	compared, differ, diff, err := kmod.Layouts(b, types, mostLayouts)
	if err != nil {
		return diag.BadInput("read module "+file, err)
	}
	for _, d := range diff {
		fmt.Printf("%s: %s in the module, %s in the kernel\n", d.Field, d.Module, d.Kernel)
	}
	switch {
	case compared == 0:
		fmt.Printf("%s has no debug information: no layouts were compared\n", file)
	case differ == 0:
		fmt.Printf("the layouts of %d structs and unions of the kernel's headers are equal\n", compared)
	default:
		fmt.Printf("%d of %d structs and unions of the kernel's headers differ\n", differ, compared)
		fits = false
	}
	if !fits {
		return exitError{exitNegative}
	}
	return nil
}

// kernelTypes gives the types of the running kernel, or of that in a dump or bzImage, and its release if it is known.
func kernelTypes(name string) (types kmod.Types, release string, done func(), err error) {
	done = func() {}
	if name == "live" {
		l, err := live.Open(live.Options{})
		if err != nil {
			return nil, "", done, err
		}
		t, err := l.Types()
		if err != nil {
			return nil, "", done, err
		}
		release, _ := l.Release()
		return t, release, done, nil
	}
	head := make([]byte, 0x206) // up to the signature of a boot protocol
	f, err := os.Open(name)
	if err != nil {
		return nil, "", done, diag.NoInput("open kernel", err)
	}
	_, err = f.ReadAt(head, 0)
	f.Close()
	if err == nil && bytes.Equal(head[0x202:], []byte("HdrS")) { // Documentation/arch/x86/boot.rst
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, "", done, diag.NoInput("open kernel", err)
		}
		k, err := kmod.OpenKernel(b)
		if err != nil {
			return nil, "", done, diag.BadInput("read kernel "+name, err)
		}
		return k.Types(), "", done, nil
	}
	t, _, done, err := openDump(name, nil)
	if err != nil {
		return nil, "", func() {}, err
	}
	types, ok := t.Types().(kmod.Types)
	if !ok {
		done()
		return nil, "", func() {}, diag.BadInput("read dump "+name, fmt.Errorf("it has no types"))
	}
	if d, ok := t.(*dump.Dump); ok {
		release = d.Info.Release
	}
	return types, release, done, nil
}
