#!/usr/bin/python3
"""recompress.py IN OUT HOW: copy a kdump-compressed file (zlib or raw pages) with its pages compressed otherwise.

HOW is raw, zlib, lzo, snappy or zstd. Debian's makedumpfile is built without snappy and zstd, so these files come from the
bindings of the compressors themselves. Layout: struct disk_dump_header and struct page_desc of makedumpfile's diskdump_mod.h.
"""
import struct, sys, zlib

def pack_with(how):
    if how == 'zlib': return 0x1, lambda p: zlib.compress(p, 1)
    if how == 'lzo':
        import lzo
        return 0x2, lambda p: lzo.compress(p, 1, False)
    if how == 'snappy':
        import snappy
        return 0x4, snappy.compress
    if how == 'zstd':
        import zstandard
        c = zstandard.ZstdCompressor(level=1)
        return 0x20, c.compress
    return 0, None

STATUS = {'raw': 0, 'zlib': 1, 'lzo': 2, 'snappy': 4, 'zstd': 32}
src, dst, how = sys.argv[1:]
b = memoryview(open(src, 'rb').read())
assert b[:8] == b'KDUMP   '
block, sub, bitmaps = struct.unpack_from('<III', b, 428)
at = (1 + sub) * block
half = bitmaps * block // 2
pages = sum(bin(x).count('1') for x in b[at + half:at + 2 * half])
descs = at + 2 * half
out = bytearray(b[:descs])
struct.pack_into('<I', out, 424, STATUS[how])
flag, pack = pack_with(how)
table, data, base, seen = bytearray(), bytearray(), descs + 24 * pages, {}
for i in range(pages):
    off, size, flags, pflags = struct.unpack_from('<QIIQ', b, descs + 24 * i)
    new = seen.get(off)  # makedumpfile has one copy of the page of zeroes
    if new is None:
        page = bytes(b[off:off + size])
        if flags & 1: page = zlib.decompress(page)
        assert flags in (0, 1) and len(page) == block
        small = pack(page) if pack else page
        new = (base + len(data), len(small), flag) if len(small) < block else (base + len(data), block, 0)
        data += small if new[2] else page
        seen[off] = new
    table += struct.pack('<QIIQ', *new, pflags)
# The VMCOREINFO and the notes stand between the sub-header and the bitmaps: their offsets do not change.
open(dst, 'wb').write(out + table + data)
