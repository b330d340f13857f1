package cli

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mention = regexp.MustCompile("`((?:docs|examples|internal|lab|bypass|answers|record|probe|wire|tools|cmd)/[A-Za-z0-9_./-]+\\.(?:md|go|txt|sh|bt|h|c|json))`")
)

// anchor is how a heading is called in links: as GitHub does, in lower case, without signs, with - for spaces.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.ReplaceAll(heading, "`", "")) {
		switch {
		case r == ' ' || r == '-':
			b.WriteByte('-')
		case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// plain are the lines of a document that are no code.
func plain(text string) (out []string) {
	code := false
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, "```") {
			code = !code
			l = ""
		}
		if code {
			l = ""
		}
		out = append(out, strings.TrimRight(l, "\n"))
	}
	return out
}

// TestLinks: what documents link to, and files that they name, are there; so are the headings behind a #.
func TestLinks(t *testing.T) {
	docs, n := documents(t), 0
	headings := func(name string) map[string]bool {
		m := map[string]bool{}
		for _, l := range plain(docs[name]) {
			if h := strings.TrimLeft(l, "#"); h != l {
				m[anchor(strings.TrimSpace(h))] = true
			}
		}
		return m
	}
	for name, text := range docs {
		for i, l := range plain(text) {
			for _, m := range mention.FindAllStringSubmatch(l, -1) {
				if n++; !there(m[1]) {
					t.Errorf("%s:%d: there is no %s", name, i+1, m[1])
				}
			}
			for _, m := range link.FindAllStringSubmatch(l, -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				n++
				to, at, _ := strings.Cut(m[1], "#")
				if to = path.Join(path.Dir(name), to); strings.HasPrefix(m[1], "#") {
					to = name
				}
				if !there(to) {
					t.Errorf("%s:%d: there is no %s", name, i+1, m[1])
				} else if at != "" && !headings(to)[at] {
					t.Errorf("%s:%d: %s has no heading %s", name, i+1, to, at)
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d links", n)
	}
}

// TestMerged: no document holds both sides of a merge.
func TestMerged(t *testing.T) {
	for name, text := range documents(t) {
		for i, l := range strings.Split(text, "\n") {
			if strings.HasPrefix(l, "<<<<<<< ") || strings.HasPrefix(l, ">>>>>>> ") {
				t.Errorf("%s:%d: %s", name, i+1, l)
			}
		}
	}
}

func there(name string) bool {
	_, err := os.Stat(filepath.Join("../..", name))
	return err == nil
}
