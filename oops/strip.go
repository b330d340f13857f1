package oops

import (
	"regexp"
	"strings"
)

// Prefixes that stand before the kernel's text, outermost first. Each is taken off as long as one fits.
var (
	ansi      = lazy("\x1b\\[[0-9;?]*[A-Za-z]")
	quote     = lazy(`^(?:[>|] ?)+`)
	journal   = lazy(`^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?) (?:\S+ )?kernel(?:\[\d+\])?: ?`)
	netcon    = lazy(`^\d{1,4},\d+,\d+,[-c](?:,[^;]*)?;`) // extended netconsole: level,seq,time,flag;text
	priority  = lazy(`^<\d{1,3}>`)
	timestamp = lazy(`^\[ *\d+\.\d{6}\] ?`)
	wallclock = lazy(`^\[(?:[A-Z][a-z]{2} ){2} ?\d+ \d\d:\d\d:\d\d \d{4}\] ?`) // dmesg -T
	caller    = lazy(`^\[ *([TC]\d+)\] ?`)
)

// Strip takes off what transports put before a line of the kernel's text: quoting, the journal's and netconsole's headers,
// priorities and timestamps. It gives the caller ("T12", "C0") where the kernel printed it.
func Strip(line string) (text, from string) {
	line = strings.TrimRight(line, "\r\n")
	if strings.Contains(line, "\x1b") {
		line = ansi().ReplaceAllString(line, "")
	}
	for {
		before := line
		for _, re := range []func() *regexp.Regexp{quote, journal, netcon, priority, timestamp, wallclock} {
			if m := re().FindString(line); m != "" {
				line = line[len(m):]
			}
		}
		if m := caller().FindStringSubmatch(line); m != nil && from == "" {
			line, from = line[len(m[0]):], m[1]
		}
		if line == before {
			return strings.TrimRight(line, " \t"), from
		}
	}
}
