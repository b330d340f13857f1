#!/usr/bin/python3
"""with_drgn.py CORE VMLINUX STRUCT,...: what drgn finds in a dump with debug information, as JSON.

Addresses whose symbols are asked for are read from standard input, in hexadecimal, one a line.
"""
import json
import sys

import drgn
from drgn.helpers.linux import for_each_task

core, vmlinux, structs = sys.argv[1:]
prog = drgn.Program()
prog.set_core_dump(core)
prog.load_debug_info([vmlinux])
out = {'Tasks': {}, 'Stacks': {}, 'Symbols': {}, 'Structs': {}}
for t in for_each_task(prog):
    tid = t.pid.value_()
    out['Tasks'][tid] = [t.comm.string_().decode('latin1'), t.tgid.value_(), t.real_parent.tgid.value_()]
    try:
        out['Stacks'][tid] = [f.pc for f in prog.stack_trace(t)]
    except Exception as e:  # drgn raises the bare class for unwind entries that are newer than it
        out['Stacks'][tid] = str(e)
for line in sys.stdin:
    try:
        s = prog.symbol(int(line, 16))
        out['Symbols'][line.strip()] = [s.name, '%x' % s.address]
    except LookupError:
        pass
for name in structs.split(','):
    try:
        t = prog.type('struct ' + name)
    except LookupError:
        continue
    if t.members is not None:
        out['Structs'][name] = [t.size, [[m.name or '', m.bit_offset, m.bit_field_size or 0] for m in t.members]]
json.dump(out, sys.stdout)
