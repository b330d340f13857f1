// Package verifier reads what the kernel's BPF verifier says when it refuses a program, and says it in words: what rule
// was broken, and what to change. The messages are those of kernel/bpf/verifier.c, btf.c and core.c from Linux 6.1 on. Newer kernels (7.3) let a report of their own
// follow a message, with a reason and a suggestion.
package verifier

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/cilium/ebpf/asm"
)

// Rejection is one refusal.
type Rejection struct {
	Source  string // the last line of source the log names, as the program's line information has it; "" if none
	Insn    string // the last instruction the log shows: "12: (85) call bpf_d_path#147"
	Helper  string // what Insn calls, if it is a call: "bpf_d_path"
	Message string // the verifier's last words
	Kind    Kind   // Other if the words are not known here
	Args    []string

	Reason     string // the kernel's own, where its verifier gives one
	Suggestion string // likewise
}

// Kind is the rule that a program broke.
type Kind string

// Other is the kind of messages that are not in the table.
const Other Kind = ""

// Parse reads a log as lines; a truncated one gives what there is.
func Parse(log []string) Rejection {
	var r Rejection
	log = r.report(log)
	p := lines()
	for _, raw := range log {
		line := strings.TrimSpace(raw)
		switch {
		case line == "" || strings.HasPrefix(line, "processed ") || strings.HasPrefix(line, "(") || p.chatter.MatchString(line):
		case strings.HasPrefix(line, "; "):
			// Since 6.9 " @ FILE:LINE" follows.
			src, _, _ := strings.Cut(line[2:], " @ ")
			r.Source = src
		case p.insn.MatchString(line):
			// An instruction may be followed by the registers it changed: "; R0_w=…".
			text, _, _ := strings.Cut(line, " ; ")
			r.Insn, r.Helper, r.Message = text, "", ""
			if m := p.call.FindStringSubmatch(text); m != nil {
				r.Helper = m[1]
			}
		default:
			if r.Message == "" || !p.detail.MatchString(line) {
				r.Message = line
			}
		}
	}
	if m := p.number.FindStringSubmatch(r.Message); m != nil && r.Helper == "unknown" {
		r.Helper = helperName(m[1])
	}
	for _, row := range rows() {
		if m := row.re.FindStringSubmatch(r.Message); m != nil {
			r.Kind, r.Args = row.kind, m[1:]
			break
		}
	}
	return r
}

// report takes a verifier's report out of a log, which has the classic message before it, and reads the parts of it that are text.
func (r *Rejection) report(log []string) (rest []string) {
	var part *string
	in := false
	for _, raw := range log {
		line := strings.TrimSpace(raw)
		switch {
		case strings.HasPrefix(line, "Verification failed:"):
			in, part = true, nil
		case strings.HasPrefix(line, "processed "):
			in = false
		case in && line == "Reason:":
			part = &r.Reason
		case in && line == "Suggestion:":
			part = &r.Suggestion
		case in && raw == line && strings.HasSuffix(line, ":"): // another heading: parts are indented
			part = nil
		case in && part != nil && line != "":
			*part = strings.TrimPrefix(*part+" "+line, " ")
		}
		if !in {
			rest = append(rest, raw)
		}
	}
	return rest
}

// helperName gives the name of a helper that a kernel does not know, of its number.
func helperName(number string) string {
	n, err := strconv.Atoi(number)
	if err != nil {
		return "unknown"
	}
	var b strings.Builder
	b.WriteString("bpf")
	for _, c := range strings.TrimPrefix(asm.BuiltinFunc(n).String(), "Fn") {
		if unicode.IsUpper(c) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// Number is the number of the last instruction, in words of 8 bytes from the start of the program.
func (r *Rejection) Number() (int, bool) {
	n, err := strconv.Atoi(strings.Split(r.Insn, ":")[0])
	return n, err == nil
}

// patterns are what lines of a log look like, made when the first log is read.
type patterns struct {
	insn, call *regexp.Regexp
	number     *regexp.Regexp // of a helper that is not there
	chatter    *regexp.Regexp // lines of state and statistics
	detail     *regexp.Regexp // lines that come after the message and say less
}

var lines = sync.OnceValue(func() *patterns {
	return &patterns{
		insn:   regexp.MustCompile(`^\d+: \([0-9a-f]{2}\) `),
		call:   regexp.MustCompile(`\) call (\S+?)#-?\d+`),
		number: regexp.MustCompile(`^invalid func unknown#(\d+)`),
		chatter: regexp.MustCompile(`^(\d+: (R|frame|safe)|R\d+(_w)?=|from \d+ to|func#\d+|verification time|stack depth|mark_precise|last_idx|regs=|` +
			`parent |propagating|arg#\d+ reference type|Validating |caller:|callee:|returning from|to caller|frame\d+:|insns? |cur state:|old state:)`),
		detail: regexp.MustCompile(`^(arg#|Func#|verifier bug|R\d+ (min|max) value is outside of the allowed)`),
	}
})

// Explain says in words what the rule is and what to change. known is false for messages that are not in the table; the
// words then are the verifier's own: its report's if there is one.
func (r *Rejection) Explain() (why, fix string, known bool) {
	for _, row := range rows() {
		if row.kind != r.Kind || r.Kind == Other {
			continue
		}
		return r.fill(row.why), r.fill(row.fix), true
	}
	if r.Reason != "" {
		return r.Reason, r.Suggestion, false
	}
	return r.Message, "", false
}

// fill puts what the message named into a text: {0} is its first detail, {helper} what was called.
func (r *Rejection) fill(s string) string {
	helper := r.Helper
	if helper == "" {
		helper = "a helper"
	}
	pairs := []string{"{helper}", helper}
	for i, a := range r.Args {
		pairs = append(pairs, "{"+string(rune('0'+i))+"}", a)
	}
	return strings.NewReplacer(pairs...).Replace(s)
}
