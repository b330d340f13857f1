package diag

import (
	"maps"
	"slices"
)

// topicOf gives the topic of an exit code.
var topicOf = map[int]string{
	ExitBadInput:    "E-INPUT",
	ExitNoInput:     "E-NOINPUT",
	ExitUnsupported: "E-KERNEL",
	ExitBug:         "E-BUG",
	ExitPermission:  "E-PERM",
}

// topics are the texts of `fathom help E-CODE`.
var topics = map[string]string{
	"E-INPUT": `E-INPUT: the input is not what it should be (exit code 65)

The file was opened, but its bytes do not make sense where the message says. What could be read before that place
was used. A file cut short by a full disk or a crash is read up to the cut.
`,
	"E-NOINPUT": `E-NOINPUT: the input cannot be opened (exit code 66)

The file or device does not exist, or is not of the kind that can be read. Names are relative to the folder fathom
was started in.
`,
	"E-KERNEL": `E-KERNEL: this kernel cannot do that (exit code 69)

fathom tried it and the kernel refused; the line "because" says what was tried and what came back. The reason is a
build option that is off, a device that is not there, or lockdown, which forbids some of it to everyone.
fathom doctor lists what this kernel allows, with the evidence and the way out of each refusal. fathom lab boots a
kernel where everything works.
`,
	"E-BUG": `E-BUG: a bug in fathom (exit code 70)

Nothing you typed should cause this. Please report the four lines, the command and the program you ran.
`,
	"E-PERM": `E-PERM: not permitted (exit code 77)

Tracing needs root, or the capabilities CAP_BPF and CAP_PERFMON (CAP_NET_ADMIN for XDP, CAP_DAC_READ_SEARCH to read
tracefs). If you are root already, the kernel is locked down or the container lacks the capability.
fathom doctor says which of them it is.
`,
}

// Topics are the codes that Help knows, sorted.
func Topics() []string { return slices.Sorted(maps.Keys(topics)) }

// Help gives the text behind a topic of the line "more".
func Help(topic string) (text string, ok bool) {
	text, ok = topics[topic]
	return text, ok
}
