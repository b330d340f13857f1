package core

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"strings"
)

// details are the commands whose answers stand behind the first page, with what they are called there.
var details = []struct{ title, command string }{
	{"Messages", "log"}, {"Stacks of all tasks, equal ones together", "foreach bt"}, {"Tasks", "ps"}, {"Run queues", "runq"},
	{"Locks", "waitq"}, {"Work", "wq"}, {"Timers", "timer"}, {"High resolution timers", "timer -r"}, {"System", "sys"}, {"Machine", "mach"},
	{"Memory", "kmem -i"}, {"Slab caches", "kmem -s"}, {"Swap", "swap"}, {"Modules", "mod"}, {"Mounts", "mount"}, {"Network devices", "net"},
	{"Sockets", "net -s"}, {"Interrupts", "irq"}, {"Softirqs", "irq -s"}, {"Drivers", "dev"},
}

const htmlHead = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Why the kernel died</title><style>
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#1b1f24;background:#fff}
h1{font-size:1.4em} h2{font-size:1.05em;margin:1.6em 0 .3em} .why{border-left:4px solid #b42318;padding:.2em 0 .2em .8em}
dl{display:grid;grid-template-columns:6em 1fr;gap:.15em .6em;margin:.6em 0} dt{color:#667} dd{margin:0;white-space:pre-wrap}
pre{font:13px/1.4 ui-monospace,monospace;overflow-x:auto;background:#f5f6f8;padding:.6em;border-radius:4px;margin:.3em 0}
summary{cursor:pointer;padding:.25em 0} code{font-family:ui-monospace,monospace}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#dde} dt{color:#99a} pre{background:#1f242a}}
</style></head><body><h1>Why the kernel died</h1>
`

// HTML writes the first page, and what commands say, as one page that needs nothing else. All that comes out of the dump is
// escaped. A command that fails says so in its place.
func (s *Session) HTML(w io.Writer) error {
	var page bytes.Buffer
	if err := s.Page(&page); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString(htmlHead)
	for i, part := range strings.Split(strings.TrimSpace(page.String()), "\n\n") {
		htmlPart(&b, part, i == 0)
	}
	b.WriteString("<h2>More</h2>\n")
	for _, d := range details {
		var out bytes.Buffer
		if err := s.Run(&out, strings.Fields(d.command)); err != nil {
			fmt.Fprintf(&out, "%v\n", err)
		}
		fmt.Fprintf(&b, "<details><summary>%s <code>%s</code></summary><pre>%s</pre></details>\n", d.title, d.command, escape(out.String()))
	}
	b.WriteString("</body></html>\n")
	_, err := w.Write(b.Bytes())
	return err
}

// escape makes text of a dump safe for a page: it may hold any bytes.
func escape(s string) string {
	return html.EscapeString(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '\ufffd'
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd")))
}

// keyWidth is how wide the first page sets the words that begin its lines.
const keyWidth = 9

// htmlPart writes a paragraph of the first page: one whose lines begin with words is a list, another a heading with text. The
// first begins with a line that says what was read.
func htmlPart(b *bytes.Buffer, part string, first bool) {
	lines := strings.Split(part, "\n")
	if first {
		fmt.Fprintf(b, "<p>%s</p>", escape(lines[0]))
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return
	}
	if key, _, ok := keyed(lines[0]); !ok {
		fmt.Fprintf(b, "<h2>%s</h2>\n", escape(lines[0]))
		if len(lines) > 1 {
			fmt.Fprintf(b, "<pre>%s</pre>\n", escape(strings.Join(lines[1:], "\n")))
		}
		return
	} else if key == "why" {
		b.WriteString(`<div class="why">`)
		defer b.WriteString("</div>\n")
	}
	b.WriteString("<dl>")
	open := false
	for _, l := range lines {
		key, value, ok := keyed(l)
		switch {
		case ok && open:
			b.WriteString("</dd>")
			fallthrough
		case ok:
			fmt.Fprintf(b, "<dt>%s</dt><dd>%s", escape(key), escape(value))
			open = true
		default:
			fmt.Fprintf(b, "\n%s", escape(strings.TrimSpace(l)))
		}
	}
	b.WriteString("</dd></dl>\n")
}

// keyed splits a line that begins with a word set to its width.
func keyed(line string) (key, value string, ok bool) {
	if len(line) <= keyWidth || line[0] == ' ' || line[keyWidth-1] != ' ' {
		return "", "", false
	}
	key = strings.TrimRight(line[:keyWidth], " ")
	return key, line[keyWidth:], !strings.Contains(key, " ")
}
