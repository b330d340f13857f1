package defs

import (
	"bytes"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Place is a line of a source tree.
type Place struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1
	text string // from there on
}

// finder finds a kind of definition.
type finder struct {
	at    func(text []byte, name string) int // says at which byte of a file; -1 if not there
	mark  string                             // what such a file has, beside the name
	first []string                           // folders of the kernel's tree in which most of them are
}

var (
	syscallPlace  = finder{atSyscall, "SYSCALL_DEFINE", code}
	structPlace   = finder{atStruct, "{", append([]string{"include"}, code...)}
	functionPlace = finder{atFunction, "(", append(slices.Clone(code), "include")}
)

// code are the folders that most of the kernel's own code is in.
var code = []string{"kernel", "fs", "mm", "net", "ipc", "security", "io_uring", "block", "lib", "arch/x86", "arch/arm64"}

// atSyscall finds SYSCALL_DEFINE3(name, …), which may be on several lines (include/linux/syscalls.h).
func atSyscall(text []byte, name string) int {
	return match(text, `(?m)^SYSCALL_DEFINE[0-6]\s*\(\s*`+regexp.QuoteMeta(name)+`\s*[,)]`)
}

// atStruct finds the definition of a struct, union or enum.
func atStruct(text []byte, name string) int {
	return match(text, `(?m)^(?:struct|union|enum)\s+`+regexp.QuoteMeta(name)+`\s*\{`)
}

func match(text []byte, expr string) int {
	if at := regexp.MustCompile(expr).FindIndex(text); at != nil {
		return at[0]
	}
	return -1
}

// atFunction finds a function's body: its name at a line that begins at the margin, parameters, and a brace.
func atFunction(text []byte, name string) int {
	re := regexp.MustCompile(`(?m)^[A-Za-z_][^;{}()#\n]*\b` + regexp.QuoteMeta(name) + `\s*\(|^` + regexp.QuoteMeta(name) + `\s*\(`)
	for _, m := range re.FindAllIndex(text, -1) {
		rest, ok := closed(text[m[1]-1:])
		if ok && strings.HasPrefix(strings.TrimLeft(string(rest[:min(len(rest), 200)]), " \t\n"), "{") {
			return m[0]
		}
	}
	return -1
}

// closed gives what follows the parenthesis that the text begins with, and whether it is closed.
func closed(text []byte) (rest []byte, ok bool) {
	depth := 0
	for i, c := range text {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return text[i+1:], true
			}
		}
	}
	return nil, false
}

// defined looks for a definition in a tree; nil if there is none. Files that cannot be read are passed over.
func defined(tree fs.FS, find finder, name string) (at *Place) {
	word, mark := []byte(name), []byte(find.mark)
	seen := map[string]bool{}
	walk := func(dir string) {
		_ = fs.WalkDir(tree, dir, func(file string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil
			case d.IsDir() && (seen[file] || path.Base(file) == ".git"):
				return fs.SkipDir
			case d.IsDir() || path.Ext(file) != ".c" && path.Ext(file) != ".h":
				return nil
			}
			text, err := fs.ReadFile(tree, file)
			if err != nil || !bytes.Contains(text, mark) || !bytes.Contains(text, word) {
				return nil
			}
			if i := find.at(text, name); i >= 0 {
				at = &Place{file, 1 + bytes.Count(text[:i], []byte("\n")), string(text[i:min(len(text), i+2000)])}
				return fs.SkipAll
			}
			return nil
		})
		seen[dir] = true
	}
	for _, dir := range append(slices.Clone(find.first), ".") {
		if walk(dir); at != nil {
			return at
		}
	}
	return nil
}

// definedArgs reads the arguments of SYSCALL_DEFINE3(read, unsigned int, fd, char __user *, buf, size_t, count).
func definedArgs(text string) (args []Arg) {
	_, in, ok := strings.Cut(text, "(")
	if !ok {
		return nil
	}
	in, _, _ = strings.Cut(in, ")")
	parts := strings.Split(in, ",")
	for i := 1; i+1 < len(parts); i += 2 {
		words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		t := words(parts[i])
		args = append(args, Arg{Name: words(parts[i+1]), Type: strings.Join(strings.Fields(strings.ReplaceAll(t, "__user", " ")), " "), User: strings.Contains(t, "__user")})
	}
	return args
}
