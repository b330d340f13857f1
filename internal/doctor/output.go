package doctor

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

// Style says how the table looks.
type Style struct {
	ASCII bool // for terminals without UTF-8
	Color bool
	Quiet bool // only what is missing
}

// Text writes the report for people.
func (r Report) Text(w io.Writer) error { return r.Styled(w, Style{}) }

// marks of a status, in UTF-8 and ASCII, and its colour.
var marks = map[Status]struct{ utf8, ascii, color string }{
	Yes: {"✓", "+", "\x1b[32m"}, No: {"✗", "x", "\x1b[31m"}, Denied: {"?", "?", "\x1b[33m"}, Info: {"·", "-", ""},
}

func (st Style) mark(s Status) string {
	m := marks[s]
	text := m.utf8
	if st.ASCII {
		text = m.ascii
	}
	if st.Color && m.color != "" {
		return m.color + text + "\x1b[0m"
	}
	return text
}

// Styled writes the report for people in a style.
func (r Report) Styled(w io.Writer, st Style) error {
	var b strings.Builder
	sep := " · "
	if st.ASCII {
		sep = " - "
	}
	fmt.Fprintf(&b, "fathom %s%sLinux %s %s%suid %d\n", r.Topic, sep, r.Release, r.Machine, sep, r.UID)
	width := 0
	for _, c := range r.Checks {
		width = max(width, utf8.RuneCountInString(c.Name))
	}
	group := ""
	for _, c := range r.Checks {
		if st.Quiet && (c.Status == Yes || c.Status == Info) {
			continue
		}
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		st.check(&b, c, width)
	}
	fmt.Fprintf(&b, "\n%s", r.Summary())
	text := b.String()
	if st.ASCII {
		text = strings.NewReplacer("→", "->", "…", "...").Replace(text)
	}
	_, err := io.WriteString(w, text)
	return err
}

// check writes one check: a line, and for what is not there the evidence, the way out and what is done instead.
func (st Style) check(b *strings.Builder, c Check, width int) {
	detail := c.Detail
	if c.Status == Info && len(c.Evidence) > 0 {
		detail = joinNonEmpty(" · ", valueOf(c.Evidence[0]), detail)
	}
	if c.Needed && c.missing() {
		detail = joinNonEmpty(", ", detail, "needed")
	}
	if st.ASCII {
		detail = strings.ReplaceAll(detail, "·", "-")
	}
	line := fmt.Sprintf("  %s %s%s  %s", st.mark(c.Status), c.Name, strings.Repeat(" ", width-utf8.RuneCountInString(c.Name)), detail)
	fmt.Fprintln(b, strings.TrimRight(line, " "))
	if c.Status == Yes || c.Status == Info {
		return
	}
	for _, e := range c.Evidence {
		fmt.Fprintf(b, "      because: %s\n", e)
	}
	for _, f := range c.Fix {
		fmt.Fprintf(b, "      try: %s\n", f)
	}
	if c.Instead != "" {
		fmt.Fprintf(b, "      instead: %s\n", c.Instead)
	}
}

// valueOf gives the value of "file=value".
func valueOf(evidence string) string {
	if _, v, ok := strings.Cut(evidence, "="); ok && strings.HasPrefix(evidence, "/proc/sys/") {
		return v
	}
	return ""
}

func joinNonEmpty(sep string, parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, sep)
}

// names lists the checks of a status.
func (r Report) names(keep func(Check) bool) (out []string) {
	for _, c := range r.Checks {
		if keep(c) {
			out = append(out, c.Name)
		}
	}
	return out
}

// Summary says in three lines at most what works, what more privilege would add, and what is missing.
func (r Report) Summary() string {
	yes := r.names(func(c Check) bool { return c.Status == Yes })
	no := r.names(func(c Check) bool { return c.Status == No })
	var b strings.Builder
	fmt.Fprintf(&b, "%d work, %d do not", len(yes), len(no))
	if d := r.names(func(c Check) bool { return c.Status == Denied }); len(d) > 0 {
		fmt.Fprintf(&b, "; sudo fathom %s tells of %d more: %s", r.Topic, len(d), strings.Join(d, ", "))
	}
	b.WriteByte('\n')
	if m := r.names(Check.missing); len(m) > 0 {
		fmt.Fprintf(&b, "missing and needed: %s\n", strings.Join(m, ", "))
	} else if r.Err == nil {
		b.WriteString("nothing that is needed is missing\n")
	}
	if r.Err != nil {
		fmt.Fprintf(&b, "ended early: %v\n", r.Err)
	}
	return b.String()
}

// JSON writes the report for programs: an object a line for each check, and one of type summary at the end.
//
//	{"type":"check","group":"probes","name":"kprobe","status":"no","evidence":[…],"fix":[…],"instead":"…"}
//	{"type":"summary","topic":"doctor","release":"6.1.0","machine":"x86_64","uid":0,"ok":true,"yes":20,"no":3,"denied":0}
func (r Report) JSON(w io.Writer) error {
	enc := jsonl.NewEncoder(w)
	for _, c := range r.Checks {
		if err := enc.Encode(struct {
			Type string `json:"type"`
			Check
		}{"check", c}); err != nil {
			return err
		}
	}
	count := func(s Status) int { return len(r.names(func(c Check) bool { return c.Status == s })) }
	sum := struct {
		Type    string   `json:"type"`
		Topic   string   `json:"topic"`
		Release string   `json:"release"`
		Machine string   `json:"machine"`
		UID     int      `json:"uid"`
		OK      bool     `json:"ok"`
		Yes     int      `json:"yes"`
		No      int      `json:"no"`
		Denied  int      `json:"denied"`
		Missing []string `json:"missing,omitempty"`
		Error   string   `json:"error,omitempty"`
	}{"summary", r.Topic, r.Release, r.Machine, r.UID, r.OK(), count(Yes), count(No), count(Denied), r.names(Check.missing), ""}
	if r.Err != nil {
		sum.Error = r.Err.Error()
	}
	return enc.Encode(sum)
}
