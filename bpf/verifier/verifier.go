// Package verifier reads what the kernel's BPF verifier says when it refuses a program, and says it in words: what rule
// was broken, and what to change. The messages are those of kernel/bpf/verifier.c, btf.c and core.c from Linux 6.1 on.
package verifier

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Rejection is one refusal.
type Rejection struct {
	Source  string // the last line of source the log names, as the program's line information has it; "" if none
	Insn    string // the last instruction the log shows: "12: (85) call bpf_d_path#147"
	Helper  string // what Insn calls, if it is a call: "bpf_d_path"
	Message string // the verifier's last words
	Kind    Kind   // Other if the words are not known here
	Args    []string
}

// Kind is the rule that a program broke.
type Kind string

// Other is the kind of messages that are not in the table.
const Other Kind = ""

// Parse reads a log as lines; a truncated one gives what there is.
func Parse(log []string) Rejection {
	var r Rejection
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
	for _, row := range rows() {
		if m := row.re.FindStringSubmatch(r.Message); m != nil {
			r.Kind, r.Args = row.kind, m[1:]
			break
		}
	}
	return r
}

// Number is the number of the last instruction, in words of 8 bytes from the start of the program.
func (r *Rejection) Number() (int, bool) {
	n, err := strconv.Atoi(strings.Split(r.Insn, ":")[0])
	return n, err == nil
}

// patterns are what lines of a log look like, made when the first log is read.
type patterns struct {
	insn, call *regexp.Regexp
	chatter    *regexp.Regexp // lines of state and statistics
	detail     *regexp.Regexp // lines that come after the message and say less
}

var lines = sync.OnceValue(func() *patterns {
	return &patterns{
		insn: regexp.MustCompile(`^\d+: \([0-9a-f]{2}\) `),
		call: regexp.MustCompile(`\) call (\S+?)#-?\d+`),
		chatter: regexp.MustCompile(`^(\d+: (R|frame|safe)|R\d+(_w)?=|from \d+ to|func#\d+|verification time|stack depth|mark_precise|last_idx|regs=|` +
			`parent |propagating|arg#\d+ reference type|Validating |caller:|callee:|returning from|to caller|frame\d+:|insns? |cur state:|old state:)`),
		detail: regexp.MustCompile(`^(arg#|Func#|verifier bug|R\d+ (min|max) value is outside of the allowed)`),
	}
})

// Explain says in words what the rule is and what to change. known is false for messages that are not in the table; the
// words then are the verifier's own.
func (r *Rejection) Explain() (why, fix string, known bool) {
	for _, row := range rows() {
		if row.kind != r.Kind || r.Kind == Other {
			continue
		}
		return r.fill(row.why), r.fill(row.fix), true
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
