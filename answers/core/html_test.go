package core

import (
	"bytes"
	"strings"
	"testing"
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
