package core

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/chromium"
)

// TestHTMLEscapes writes paragraphs in which names are what an attacker would choose.
func TestHTMLEscapes(t *testing.T) {
	const bad = `<script>alert("x")</script>&amp;`
	var b bytes.Buffer
	for i, part := range []string{
		"/dumps/" + bad + "\nkernel   6.12 " + bad + ", 2 CPUs\nwhen     " + bad,
		"why      " + bad + "\n         " + bad + "\nwho      " + bad,
		"stack of pid 1 " + bad + "\n  #0  " + bad,
		bad,
	} {
		htmlPart(&b, part, i == 0)
	}
	out := b.String()
	if strings.Contains(out, "<script") || strings.Count(out, "&lt;script&gt;") != 9 || strings.Count(out, "&amp;amp;") != 9 {
		t.Error(out)
	}
	for _, tag := range []string{"dl", "dd", "pre", "h2", "div"} {
		if opened, closed := strings.Count(out, "<"+tag), strings.Count(out, "</"+tag+">"); opened != closed {
			t.Errorf("<%s> is opened %d and closed %d times:\n%s", tag, opened, closed, out)
		}
	}
}

// TestPageInBrowser opens a page in a browser.
func TestPageInBrowser(t *testing.T) {
	tab := chromium.Open(t, os.Getenv("FATHOM_SOAK") != "")
	b := bytes.NewBufferString(htmlHead)
	for i, part := range []string{
		"/dumps/vmcore\nkernel   6.12.1-amd64, 2 CPUs\nwhen     just now",
		"why      somebody asked for it: <sysrq-c>\nwho      sh, process 187",
		"stack of pid 187\n  #0  sysrq_handle_crash+0x16",
	} {
		htmlPart(b, part, i == 0)
	}
	b.WriteString("<details><summary>Log <code>log</code></summary><pre>last words</pre></details>\n</body></html>\n")
	file := filepath.Join(t.TempDir(), "core.html")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tab.Alone("core", file, "6.12.1-amd64", "somebody asked for it: <sysrq-c>", "sysrq_handle_crash+0x16", "last words")
}
