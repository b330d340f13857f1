package oops

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Pstore is what a kernel left of its messages in memory that outlives it (Documentation/admin-guide/pstore-blk.rst and
// ramoops.rst): the end of its log, put together of the parts that are in files of their own.
type Pstore struct {
	Reason string // "Panic", "Oops", "Emergency", …; "" for what is no dump of the log
	Count  int    // of dumps since that kernel booted
	Files  []string
	Text   string
}

// PstoreFile is a file of /sys/fs/pstore, or of a folder into which they were moved.
type PstoreFile struct {
	Name string
	Data []byte
}

// part of a dump: its first line says which (kernel: fs/pstore/platform.c, pstore_dump). Part 1 is the end of the log.
var partRE = lazy(`^([A-Z][A-Za-z ]*)#(\d+) Part(\d+)\n`)

// partHeader is a file's first line, read.
type partHeader struct {
	file   PstoreFile
	reason string
	count  int
	part   int
	text   string
}

// JoinPstore puts dumps together, in the order in which they were made. Files that are no parts of dumps, such as the console's,
// come last, each alone. What the kernel could not unpack (.enc.z) is an error that names it; the others are there.
func JoinPstore(files []PstoreFile) (out []Pstore, err error) {
	var parts []partHeader
	var packed []string
	for _, f := range files {
		m := partRE().FindSubmatch(f.Data)
		switch {
		case strings.HasSuffix(f.Name, ".enc.z"):
			packed = append(packed, f.Name)
		case m == nil:
			parts = append(parts, partHeader{file: f, text: string(f.Data), count: -1})
		default:
			count, _ := strconv.Atoi(string(m[2]))
			part, _ := strconv.Atoi(string(m[3]))
			parts = append(parts, partHeader{f, string(m[1]), count, part, string(f.Data[len(m[0]):])})
		}
	}
	sorting.Stable(parts, func(a, b partHeader) int {
		return cmp.Or(cmp.Compare(uint(a.count), uint(b.count)), strings.Compare(a.reason, b.reason), strings.Compare(family(a), family(b)), cmp.Compare(b.part, a.part))
	})
	for i, p := range parts {
		if i > 0 && p.count >= 0 && p.count == parts[i-1].count && p.reason == parts[i-1].reason && family(p) == family(parts[i-1]) && p.part != parts[i-1].part {
			last := &out[len(out)-1]
			last.Files = append(last.Files, p.file.Name)
			last.Text += p.text
			continue
		}
		out = append(out, Pstore{Reason: p.reason, Count: max(p.count, 0), Files: []string{p.file.Name}, Text: p.text})
	}
	if len(packed) > 0 {
		err = fmt.Errorf("%s: packed with what the kernel that runs cannot unpack", strings.Join(packed, ", "))
	}
	return out, err
}

var recordRE = lazy(`-\d+(\.enc\.z)?$`)

// family is the name of a file without the number of its record: "dmesg-ramoops".
func family(p partHeader) string { return recordRE().ReplaceAllString(p.file.Name, "") }
