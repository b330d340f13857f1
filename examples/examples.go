// Package examples holds the programs that come with fathom: the well-known tracing tools, written anew in the bpftrace
// language. `fathom trace NAME` runs one; each is also a file to read and to change.
package examples

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

//go:embed tools/*.bt
var files embed.FS

// Tool is one program.
type Tool struct {
	Name string // "opensnoop"
	Doc  string // what it answers, in a sentence or two
	Text string
}

// Tools lists all programs by name.
func Tools() []Tool {
	ents, err := fs.ReadDir(files, "tools")
	if err != nil {
		return nil
	}
	var out []Tool
	for _, e := range ents {
		if t, ok := Find(strings.TrimSuffix(e.Name(), ".bt")); ok {
			out = append(out, t)
		}
	}
	return out
}

// Find gives the program of a name, which may end in ".bt".
func Find(name string) (Tool, bool) {
	name = strings.TrimSuffix(name, ".bt")
	b, err := files.ReadFile(path.Join("tools", name+".bt"))
	if err != nil || strings.Contains(name, "/") {
		return Tool{}, false
	}
	t := Tool{Name: name, Text: string(b)}
	for line := range strings.Lines(t.Text) {
		if c, ok := strings.CutPrefix(line, "// "); ok && !strings.HasPrefix(line, "//go:") {
			t.Doc += strings.TrimSpace(c) + " "
		} else if t.Doc != "" {
			break
		}
	}
	t.Doc = strings.TrimSpace(t.Doc)
	return t, true
}
