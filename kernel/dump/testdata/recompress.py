#!/usr/bin/python3
"""recompress.py IN HOW OUT [HOW OUT]...: copy a kdump-compressed file (zlib or raw pages) with its pages compressed otherwise.

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
src, outs = sys.argv[1], list(zip(sys.argv[2::2], sys.argv[3::2]))
b = memoryview(open(src, 'rb').read())
assert b[:8] == b'KDUMP   '
block, sub, bitmaps = struct.unpack_from('<III', b, 428)
at = (1 + sub) * block
half = bitmaps * block // 2
pages = sum(bin(x).count('1') for x in b[at + half:at + 2 * half])
descs = at + 2 * half
base = descs + 24 * pages

class Copy:
    """One of the files that are made; pages come in their order."""
    def __init__(self, how, dst):
        self.how, self.dst = how, dst
        self.flag, self.pack = pack_with(how)
        self.table, self.data, self.seen = bytearray(), bytearray(), {}

    def add(self, off, page, pflags):
        new = self.seen.get(off)  # makedumpfile has one copy of the page of zeroes
        if new is None:
            small = self.pack(page) if self.pack else page
            where = base + len(self.data)
            new = (where, len(small), self.flag) if len(small) < block else (where, block, 0)
            self.data += small if new[2] else page
            self.seen[off] = new
        self.table += struct.pack('<QIIQ', *new, pflags)

    def write(self):
        # The VMCOREINFO and the notes stand between the sub-header and the bitmaps: their offsets do not change.
        head = bytearray(b[:descs])
        struct.pack_into('<I', head, 424, STATUS[self.how])
        with open(self.dst, 'wb') as f:
            f.write(head + self.table + self.data)

copies = [Copy(how, dst) for how, dst in outs]
for i in range(pages):
    off, size, flags, pflags = struct.unpack_from('<QIIQ', b, descs + 24 * i)
    page = bytes(b[off:off + size])
    if flags & 1: page = zlib.decompress(page)
    assert flags in (0, 1) and len(page) == block
    for c in copies: c.add(off, page, pflags)
for c in copies: c.write()
