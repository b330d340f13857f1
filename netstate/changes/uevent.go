package changes

import "strings"

// moduleEvent reads a uevent as the kernel sends it (lib/kobject_uevent.c): "ACTION@DEVPATH", then KEY=VALUE, each ended by
// NUL. ok says that a module came or went; what udev sends on begins otherwise.
func moduleEvent(b []byte) (module string, act Act, ok bool) {
	head, rest, _ := strings.Cut(string(b), "\x00")
	verb, path, found := strings.Cut(head, "@")
	module, isModule := strings.CutPrefix(path, "/module/")
	if !found || !isModule || strings.Contains(module, "/") || !strings.Contains("\x00"+rest, "\x00SUBSYSTEM=module\x00") {
		return "", "", false
	}
	switch verb {
	case "add":
		return module, Added, true
	case "remove":
		return module, Removed, true
	}
	return "", "", false
}
