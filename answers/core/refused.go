package core

import (
	"fmt"
	"strings"
)

// instead are commands of crash that are not here, with what to use.
var instead = map[string]string{
	"gdb":        "p, struct, whatis, dis and list take what its users type",
	"alias":      "the commands are these; the shell has aliases: fathom core FILE COMMAND",
	"extend":     "commands of one's own are programs: fathom trace --on FILE -e 'iter:task { … }'",
	"edit":       "fathom core FILE COMMAND in a shell has its history",
	"wr":         "a dump is not written to; fathom lab gdb changes a live guest",
	"repeat":     "a dump does not change; a shell's loop around fathom core --guest NAME COMMAND looks again and again",
	"kmem -c":    "p expressions count, kmem -s lists caches",
	"kmem -F":    "kmem -f counts the blocks, kmem -p ADDRESS says of a page whether it is free (buddy)",
	"kmem -C":    "nothing is looked for in lists of free pages: kmem -p ADDRESS says if a page is free (buddy)",
	"mod -s":     "symbols and types of modules are there without it; --debuginfo PATH adds source lines",
	"mod -S":     "symbols and types of modules are there without it; --debuginfo PATH adds source lines",
	"mod -t":     "mod shows taints",
	"sys -t":     "sys shows the taint",
	"sys config": "fathom explain config --of FILE NEED",
	"log -a":     "the audit messages that wait are in no one's log: list sk_buff.next of audit_queue",
	"struct -c":  "rd and struct take as many addresses, one after the other",
	"dis -s":     "--debuginfo PATH and dis -l name the source lines; the source is not searched for",
	"dis -x":     "numbers are hexadecimal",
	"bt -s":      "frames have offsets without it",
	"bt -F":      "bt -r shows the words of a stack; kmem ADDRESS says of which cache an object is",
	"vtop -k":    "addresses of the kernel need no flag",
	"ps -s":      "task -R stack,thread shows a stack's addresses",
	"ps -g":      "bt -g PID shows all threads of a task",
	"mod -r":     "modules are there without being read again",
	"bt -o":      "there is one way to unwind; frames that are not certain are marked with ?",
	"bt -O":      "there is one way to unwind; frames that are not certain are marked with ?",
	"files -p":   "p and list go over an inode's i_pages with tree -t xarray",
	"net -r":     "there is no such flag",
	"timer -C":   "timer lists all CPUs; the first column is the CPU",
	"ps -y":      "ps and foreach take names, states and PIDs; task -R policy shows the policy",
	"ps -r":      "task -R signal, then struct signal_struct.rlim",
	"list -B":    "lists that are circles are found out anyway",
}

// refused says what to use in the place of a command or flag of crash that is not here.
func refused(name string, args []string) error {
	if why, ok := instead[name]; ok {
		return &Usage{fmt.Sprintf("%s of crash is not here: %s", name, why)}
	}
	for _, a := range args {
		key := name + " " + a
		if strings.HasPrefix(a, "-") && len(a) > 2 {
			key = name + " " + a[:2]
		}
		if why, ok := instead[key]; ok {
			return &Usage{fmt.Sprintf("%s of crash is not here: %s", key, why)}
		}
	}
	return nil
}
