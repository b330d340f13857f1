package vmcore

import (
	"bytes"
	"strconv"
	"strings"
)

// Info is VMCOREINFO: what a kernel writes about itself for those who read its dump
// (Documentation/admin-guide/kdump/vmcoreinfo.rst).
type Info struct {
	Release  string            // OSRELEASE
	BuildID  string            // BUILD-ID, hexadecimal; "" before 5.9
	PageSize uint64            // 4096 if not said
	Symbols  map[string]uint64 // SYMBOL(x): addresses, with the kernel's relocation
	Numbers  map[string]int64  // NUMBER(x)
	Sizes    map[string]int64  // SIZE(x)
	Offsets  map[string]int64  // OFFSET(struct.member)
	Lengths  map[string]int64  // LENGTH(array)
	Other    map[string]string // KERNELOFFSET, CRASHTIME …
	Found    uint64            // physical address it was found at by scanning; 0: from the file
}

// maxInfo is VMCOREINFO_BYTES, a page of the largest size there is.
const maxInfo = 64 << 10

// ParseInfo reads the text. Lines that are none of its forms are left out.
func ParseInfo(b []byte) *Info {
	i := &Info{PageSize: 4096, Symbols: map[string]uint64{}, Numbers: map[string]int64{}, Sizes: map[string]int64{},
		Offsets: map[string]int64{}, Lengths: map[string]int64{}, Other: map[string]string{}}
	b = b[:min(len(b), maxInfo)]
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if ok {
			i.set(key, value)
		}
	}
	return i
}

func (i *Info) set(key, value string) {
	kind, name, ok := strings.Cut(strings.TrimSuffix(key, ")"), "(")
	if !ok {
		i.setPlain(key, value)
		return
	}
	if kind == "SYMBOL" {
		if v, err := strconv.ParseUint(value, 16, 64); err == nil {
			i.Symbols[name] = v
		}
		return
	}
	tables := map[string]map[string]int64{"NUMBER": i.Numbers, "SIZE": i.Sizes, "OFFSET": i.Offsets, "LENGTH": i.Lengths}
	if t := tables[kind]; t != nil {
		v, err := strconv.ParseInt(value, 0, 64)
		if u, uerr := strconv.ParseUint(value, 0, 64); err != nil && uerr == nil {
			v, err = int64(u), nil
		}
		if err == nil {
			t[name] = v
		}
	}
}

func (i *Info) setPlain(key, value string) {
	switch key {
	case "OSRELEASE":
		i.Release = value
	case "BUILD-ID":
		i.BuildID = value
	case "PAGESIZE":
		if v, err := strconv.ParseUint(value, 10, 64); err == nil && v != 0 && v&(v-1) == 0 {
			i.PageSize = v
		}
	default:
		i.Other[key] = value
	}
}

// KernelOffset is KERNELOFFSET: how far the kernel was moved from where it was linked.
func (i *Info) KernelOffset() uint64 {
	v, _ := strconv.ParseUint(i.Other["KERNELOFFSET"], 16, 64)
	return v
}

// FindInfo looks for VMCOREINFO in memory: the kernel keeps its text at the start of a page, from boot on. It is for dumps
// whose file has no note; the search ends at the first text that has a release and the kernel's page table. It sets Info.
func (c *Core) FindInfo() bool {
	const page = 4096
	head := make([]byte, len(infoHead))
	text := make([]byte, page)
	for _, r := range c.ranges {
		for at := (r.Start + page - 1) &^ (page - 1); at+page <= r.End; at += page {
			if c.ReadPhys(head, at) != nil || string(head) != infoHead || c.ReadPhys(text, at) != nil {
				continue
			}
			i := ParseInfo(text)
			if i.Symbols["swapper_pg_dir"] != 0 {
				i.Found = at
				c.Info = i
				return true
			}
		}
	}
	return false
}

const infoHead = "OSRELEASE="
