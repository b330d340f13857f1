#!/usr/bin/python3
"""globals.py VMLINUX: the sizes of variables by debug information, one a line, for those that standard input names.

A line of the input is a name and a type; where the debug information has another type, that is said on standard error and the
script fails.
"""
import re
import sys

import drgn

prog = drgn.Program()
prog.load_debug_info([sys.argv[1]])
wrong = 0
for line in sys.stdin:
    name, declared = line.strip().split(' ', 1)
    try:
        t = prog[name].type_
    except LookupError:
        continue  # of other versions
    plain = re.sub(r'\bconst\b|\s|\[\d*\]', '', t.type_name())
    if plain != re.sub(r'\s|\[\d*\]', '', declared):
        print(name, 'is', t.type_name(), 'and not', declared, file=sys.stderr)
        wrong += 1
    if '[]' not in t.type_name():
        print(name, drgn.sizeof(t))
sys.exit(wrong > 0)
