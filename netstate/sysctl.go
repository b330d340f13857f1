package netstate

import "strings"

// SysctlName writes a name, of a device say, as it stands in the name of a setting: dots become slashes and slashes dots.
func SysctlName(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, s)
}
