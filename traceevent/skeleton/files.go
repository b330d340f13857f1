package skeleton

import (
	"fmt"
	"regexp"
	"strings"
)

// File is a file to be.
type File struct{ Name, Text string }

// Files are what belongs into the event's folder: the header, the module, and what builds it.
func (e *Event) Files() []File {
	return []File{
		{e.Name + "_trace.h", e.header()},
		{e.Name + ".c", e.module()},
		{"Kbuild", fmt.Sprintf("obj-m := %s.o\nccflags-y := -I$(src)\n", e.Name)},
		{"Makefile", makefile},
	}
}

const makefile = `# The kernel that runs, or make KDIR=TREE: a built kernel, or its headers.
KDIR ?= /lib/modules/$(shell uname -r)/build

all clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $(patsubst all,modules,$@)

.PHONY: all clean
`

// params are the names of what callers give for a field.
func (f *field) params() []string {
	if f.kind == dynamic {
		return []string{f.name, f.name + "_len"}
	}
	return []string{f.name}
}

// proto is what callers give for a field, declared.
func (e *Event) proto(f *field) string {
	switch f.kind {
	case symbolic:
		return "enum " + e.Name + "_" + f.name + " " + f.name
	case bits:
		return "unsigned int " + f.name
	case text, str:
		return "const char *" + f.name
	case array:
		return "const " + f.typ + " *" + f.name
	case dynamic:
		return "const " + f.typ + " *" + f.name + ", unsigned int " + f.name + "_len"
	case pointer:
		return f.typ + f.name
	}
	return f.typ + " " + f.name
}

// entry declares a field of the record, and assign fills it.
func (f *field) entry() (entry, assign string) {
	assign = fmt.Sprintf("__entry->%s = %[1]s;", f.name)
	switch f.kind {
	case symbolic:
		return fmt.Sprintf("__field(int, %s)", f.name), assign
	case bits:
		return fmt.Sprintf("__field(unsigned int, %s)", f.name), assign
	case text:
		return fmt.Sprintf("__array(char, %s, %d)", f.name, f.n), fmt.Sprintf("strscpy(__entry->%s, %[1]s, sizeof(__entry->%[1]s));", f.name)
	case str:
		return fmt.Sprintf("__string(%s, %[1]s)", f.name), "" // the event's own macro
	case array:
		return fmt.Sprintf("__array(%s, %s, %d)", f.typ, f.name, f.n), fmt.Sprintf("memcpy(__entry->%s, %[1]s, sizeof(__entry->%[1]s));", f.name)
	case dynamic:
		return fmt.Sprintf("__dynamic_array(%s, %s, %[2]s_len)", f.typ, f.name),
			fmt.Sprintf("memcpy(__get_dynamic_array(%s), %[1]s, %[1]s_len * sizeof(%s));", f.name, f.typ)
	}
	return fmt.Sprintf("__field(%s, %s)", f.typ, f.name), assign
}

// constant is what C knows a field's value by: names in the kernel are many.
func (e *Event) constant(f *field, value string) string {
	return strings.ToUpper(e.Name+"_"+f.name) + "_" + value
}

// each joins what there is for each field.
func (e *Event) each(sep string, f func(*field) string) string {
	var out []string
	for i := range e.fields {
		if s := f(&e.fields[i]); s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, sep)
}

// fold breaks a list that is longer than a line.
func fold(list string) string {
	const width = 70
	var b strings.Builder
	at := 0
	for i, s := range strings.SplitAfter(list, ", ") {
		if at+len(s) > width && i > 0 {
			b.WriteString("\n\t\t")
			at = 0
		}
		b.WriteString(s)
		at += len(s)
	}
	return strings.ReplaceAll(b.String(), ", \n", ",\n")
}

func (e *Event) has(k kind) bool {
	for _, f := range e.fields {
		if f.kind == k {
			return true
		}
	}
	return false
}

func (e *Event) header() string {
	var b strings.Builder
	guard := strings.ToUpper(e.System+"_"+e.Name) + "_TRACE_H"
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	say("/* SPDX-License-Identifier: GPL-2.0 */\n")
	say("/* The event %s:%s: what callers give, what is recorded of it, and how a line of trace shows that. */\n", e.System, e.Name)
	say("#undef TRACE_SYSTEM\n#define TRACE_SYSTEM %s\n\n", e.System)
	say("#if !defined(%s) || defined(TRACE_HEADER_MULTI_READ)\n#define %[1]s\n\n#include <linux/tracepoint.h>\n", guard)
	if e.has(str) {
		say("#include <linux/version.h>\n")
	}
	say("\n%s", e.declarations())
	if e.has(str) {
		say("/* Since 6.10 the text is the one that __string named. */\n")
		say("#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)\n#define %s_assign_str(dst, src) __assign_str(dst, src)\n", e.Name)
		say("#else\n#define %s_assign_str(dst, src) __assign_str(dst)\n#endif\n\n", e.Name)
	}
	say("TRACE_EVENT(%s,\n", e.Name)
	say("\tTP_PROTO(%s),\n", fold(e.each(", ", e.proto)))
	say("\tTP_ARGS(%s),\n", fold(e.each(", ", func(f *field) string { return strings.Join(f.params(), ", ") })))
	say("\tTP_STRUCT__entry(\n\t\t%s\n\t),\n", e.each("\n\t\t", func(f *field) string { s, _ := f.entry(); return s }))
	say("\tTP_fast_assign(\n\t\t%s\n\t),\n", e.each("\n\t\t", func(f *field) string {
		if f.kind == str {
			return fmt.Sprintf("%s_assign_str(%s, %[2]s);", e.Name, f.name)
		}
		_, s := f.entry()
		return s
	}))
	say("\tTP_printk(\"%s\",\n\t\t%s)\n);\n\n#endif\n\n", e.print, e.each(",\n\t\t", e.arg))
	say("/* Where define_trace.h finds this file again: Kbuild has its folder among those of headers. */\n")
	say("#undef TRACE_INCLUDE_PATH\n#define TRACE_INCLUDE_PATH .\n#undef TRACE_INCLUDE_FILE\n#define TRACE_INCLUDE_FILE %s_trace\n#include <trace/define_trace.h>\n", e.Name)
	return b.String()
}

// declarations are what the event's prototype needs: structs that are pointed to, enums. They are read once, the rest of the
// header many times.
func (e *Event) declarations() string {
	var b, exported strings.Builder
	pointed := regexp.MustCompile(`\bstruct\s+(\w+)`)
	seen := map[string]bool{}
	for _, f := range e.fields {
		if m := pointed.FindStringSubmatch(f.typ); m != nil && f.kind == pointer && !seen[m[1]] {
			fmt.Fprintf(&b, "struct %s;\n", m[1])
			seen[m[1]] = true
		}
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	if !e.has(symbolic) && !e.has(bits) {
		return b.String()
	}
	guard := strings.ToUpper(e.System+"_"+e.Name) + "_VALUES"
	fmt.Fprintf(&b, "#ifndef %s\n#define %[1]s\n", guard)
	for i := range e.fields {
		f := &e.fields[i]
		if len(f.values) == 0 {
			continue
		}
		fmt.Fprintf(&b, "enum %s_%s {\n", e.Name, f.name)
		for _, v := range f.values {
			c := e.constant(f, v.Name)
			if f.kind == bits {
				fmt.Fprintf(&b, "\t%s = %#x,\n", c, v.Value)
			} else {
				fmt.Fprintf(&b, "\t%s = %d,\n", c, v.Value)
			}
			fmt.Fprintf(&exported, "TRACE_DEFINE_ENUM(%s);\n", c)
		}
		b.WriteString("};\n")
	}
	b.WriteString("#endif\n\n/* Who reads the format of the event finds numbers in place of these names. */\n" + exported.String() + "\n")
	return b.String()
}

// module is a module that fires the event; its values are of no meaning, and differ from one to the next.
func (e *Event) module() string {
	r := strings.NewReplacer("NAME", e.Name, "SYSTEM", e.System, "LOCALS", e.locals(), "FILL", e.fill(),
		"ARGS", fold(e.each(", ", e.sample)))
	return r.Replace(`// SPDX-License-Identifier: GPL-2.0
/*
 * NAME: defines the event SYSTEM:NAME and fires it.
 *
 * echo N > /sys/module/NAME/parameters/fire fires it N times. Call trace_NAME() where there is something to tell, and let
 * one source of your module have CREATE_TRACE_POINTS before the header; the others include the header alone.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>

#define CREATE_TRACE_POINTS
#include "NAME_trace.h"

static void NAME_fire(int i)
{
LOCALSFILL	trace_NAME(ARGS);
}

static int NAME_set(const char *text, const struct kernel_param *kp)
{
	unsigned int n, i;
	int err = kstrtouint(text, 0, &n);

	if (err)
		return err;
	for (i = 0; i < min(n, 1000000u); i++)
		NAME_fire(i);
	return 0;
}

static const struct kernel_param_ops NAME_ops = { .set = NAME_set };
module_param_cb(fire, &NAME_ops, NULL, 0200);
MODULE_PARM_DESC(fire, "fires the event so many times");

static int __init NAME_init(void)
{
	return 0;
}

static void __exit NAME_exit(void)
{
	tracepoint_synchronize_unregister();
}

module_init(NAME_init);
module_exit(NAME_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("The event SYSTEM:NAME");
`)
}

// mostSample is how many elements the samples of an array without a length have.
const mostSample = 4

// locals declares what the samples of texts and arrays are in. The parameter's lock has one writer at a time.
func (e *Event) locals() string {
	s := e.each("", func(f *field) string {
		var vs []string
		for _, v := range f.values {
			vs = append(vs, e.constant(f, v.Name))
		}
		switch f.kind {
		case symbolic:
			return fmt.Sprintf("\tstatic const enum %s_%s %[2]s_value[] = { %s };\n", e.Name, f.name, strings.Join(vs, ", "))
		case bits:
			return fmt.Sprintf("\tstatic const unsigned int %s_value[] = { %s };\n", f.name, strings.Join(vs, ", "))
		case text:
			return fmt.Sprintf("\tstatic char %s_value[%d];\n", f.name, f.n)
		case str:
			return fmt.Sprintf("\tstatic char %s_value[64];\n", f.name)
		case array:
			return fmt.Sprintf("\tstatic %s %s_value[%d];\n", f.typ, f.name, f.n)
		case dynamic:
			return fmt.Sprintf("\tstatic %s %s_value[%d];\n", f.typ, f.name, mostSample)
		}
		return ""
	})
	if e.has(array) || e.has(dynamic) {
		s += "\tint j;\n"
	}
	if s != "" {
		s += "\n"
	}
	return s
}

func (e *Event) fill() string {
	return e.each("", func(f *field) string {
		switch f.kind {
		case text, str:
			return fmt.Sprintf("\tsnprintf(%s_value, sizeof(%[1]s_value), \"%[1]s-%%d\", i);\n", f.name)
		case array, dynamic:
			return fmt.Sprintf("\tfor (j = 0; j < ARRAY_SIZE(%s_value); j++)\n\t\t%[1]s_value[j] = i + j;\n", f.name)
		}
		return ""
	})
}

// sample is what the module gives for a field.
func (e *Event) sample(f *field) string {
	value := f.name + "_value"
	switch f.kind {
	case symbolic:
		return fmt.Sprintf("%s[i %% ARRAY_SIZE(%[1]s)]", value)
	case bits:
		return fmt.Sprintf("%s[i %% ARRAY_SIZE(%[1]s)] | %[1]s[(i + 1) %% ARRAY_SIZE(%[1]s)]", value)
	case text, str, array:
		return value
	case dynamic:
		return fmt.Sprintf("%s, i %% (int)(ARRAY_SIZE(%[1]s) + 1)", value)
	case pointer:
		if strings.Contains(f.typ, "void") {
			return e.Name + "_fire"
		}
		return "NULL"
	}
	if f.elem.Bool {
		return "i % 2"
	}
	return fmt.Sprintf("i * 10 + %d", e.place(f))
}

// place is the number of a field, from 1.
func (e *Event) place(f *field) int {
	for i := range e.fields {
		if &e.fields[i] == f {
			return i + 1
		}
	}
	return 0
}
