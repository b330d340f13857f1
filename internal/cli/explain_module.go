package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lab/guest/kmod"
)

// mostLayouts is how many differences of a module are told.
const mostLayouts = 40

// moduleFit is what is said of a module and a kernel; with -j it is one object.
type moduleFit struct {
	Module   string          `json:"module"`
	Built    string          `json:"built_for,omitempty"` // release in its vermagic
	Release  string          `json:"kernel,omitempty"`    // of the kernel, where it is known
	Compared int             `json:"compared"`            // structs and unions
	Differ   int             `json:"differ"`
	Fields   []kmod.Mismatch `json:"fields,omitempty"` // the first of what differs
	Fits     bool            `json:"fits"`
}

// explainModule says if a module fits a kernel, by release and by the layouts of structs.
func explainModule(file, against string, asJSON bool) error {
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
	m := moduleFit{Module: file, Release: release}
	m.Built, _, _ = strings.Cut(info.Vermagic, " ")
	if m.Compared, m.Differ, m.Fields, err = kmod.Layouts(b, types, mostLayouts); err != nil {
		return diag.BadInput("read module "+file, err)
	}
	m.Fits = m.Differ == 0 && (m.Release == "" || m.Built == "" || m.Built == m.Release)
	if asJSON {
		err = jsonl.Write(os.Stdout, m)
	} else {
		_, err = os.Stdout.WriteString(m.text())
	}
	if err == nil && !m.Fits {
		err = exitError{exitNegative}
	}
	return err
}

// text is what people read.
func (m moduleFit) text() string {
	var b strings.Builder
	if m.Release != "" && m.Built != "" && m.Built != m.Release {
		fmt.Fprintf(&b, "%s was built for %s, the kernel is %s\n", m.Module, m.Built, m.Release)
	}
	for _, d := range m.Fields {
		fmt.Fprintf(&b, "%s: %s in the module, %s in the kernel\n", d.Field, d.Module, d.Kernel)
	}
	switch {
	case m.Compared == 0:
		fmt.Fprintf(&b, "no layouts were compared: %s has no debug information about structs of the kernel's headers\n", m.Module)
	case m.Differ == 0:
		fmt.Fprintf(&b, "the layouts of %d structs and unions of the kernel's headers are equal\n", m.Compared)
	default:
		fmt.Fprintf(&b, "%d of %d structs and unions of the kernel's headers differ\n", m.Differ, m.Compared)
	}
	return b.String()
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
		return nil, "", func() {}, diag.BadInput("read dump "+name, errors.New("it has no types"))
	}
	if d, ok := t.(*dump.Dump); ok {
		release = d.Info.Release
	}
	return types, release, done, nil
}
