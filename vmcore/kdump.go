package vmcore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Bits of disk_dump_header.status.
const (
	statusZlib = 1 << iota
	statusLZO
	statusSnappy
	statusIncomplete
	statusNoVmemmap
	statusZstd
)

// Bits of page_desc.flags.
const (
	pageZlib   = 0x1
	pageLZO    = 0x2
	pageSnappy = 0x4
	pageZstd   = 0x20
)

// kdumpHeader is struct disk_dump_header with kdump_sub_header (makedumpfile's diskdump_mod.h), as written by 64-bit
// machines.
type kdumpHeader struct {
	version      int32
	machine      string
	status       uint32
	blockSize    int64
	subBlocks    int64
	bitmapBlocks int64
	maxPFN       uint64 // one more than the last
	physBase     uint64
	level        int32
	split        bool
	start, end   uint64 // PFNs of a split file
	infoOff      int64
	infoSize     uint64
	noteOff      int64
	noteSize     uint64
}

const (
	kdumpHeaderSize = 464
	descSize        = 24
	maxBlock        = 64 << 10
	maxPFNs         = 1 << 36 // 256 TiB of 4 KiB pages; the bitmap is bounded by the file too
)

// rankBits is how many pages share one entry of the rank table.
const rankBits = 4096

// kdumpFile is one file of a dump.
type kdumpFile struct {
	File
	kdumpHeader
	bitmap1, bitmap2, descs int64    // offsets
	bitmapLen               int64    // bytes of one bitmap
	rank                    []uint64 // pages dumped before each run of rankBits

	last1, last2 bitmapPart // of each bitmap, last asked
}

// bitmapPart is what a bitmap says of one run of rankBits pages; less where the file ends.
type bitmapPart struct {
	b  []byte
	at int64 // in the bitmap, one more than where it begins: 0 is none
}

// kdumpMemory is all files of a dump and the pages last read.
type kdumpMemory struct {
	files []*kdumpFile
	bs    uint64
	cache pageCache
	bad   map[uint64]MissingError // pages that could not be loaded, by PFN: tables that are searched come by them again and again
	unz   decompressor
	raw   []byte
}

func openKdump(files []File) (*Core, error) {
	c := &Core{Format: FormatKdump}
	m := &kdumpMemory{}
	for _, f := range files {
		k, err := openKdumpFile(f)
		if err != nil {
			return nil, err
		}
		if m.bs != 0 && m.bs != uint64(k.blockSize) {
			return nil, &bin.FormatError{What: "kdump header", Off: 428, Msg: "files of one dump differ in page size"}
		}
		m.bs = uint64(k.blockSize)
		m.files = append(m.files, k)
		c.Machine = k.machine
		c.Incomplete = c.Incomplete || k.status&statusIncomplete != 0
		if k.noteSize > 0 {
			if c.CPUs == nil {
				c.readNotes(f, k.noteOff, k.noteSize)
			}
		}
		if k.infoSize > 0 && k.infoOff > 0 && k.infoOff < f.Size {
			b := make([]byte, min(k.infoSize, maxInfo, uint64(f.Size-k.infoOff)))
			n, _ := f.R.ReadAt(b, k.infoOff)
			if i := ParseInfo(b[:n]); i.Release != "" {
				c.Info = i
			}
		}
	}
	h := m.files[0].kdumpHeader
	c.Detail = fmt.Sprintf("version %d%s", h.version, compressions(h.status))
	m.cache.init(m.bs)
	c.mem = m
	c.ranges = m.ranges()
	return c, nil
}

func compressions(status uint32) string {
	for _, f := range []struct {
		bit  uint32
		name string
	}{{statusZlib, "zlib"}, {statusLZO, "lzo"}, {statusSnappy, "snappy"}, {statusZstd, "zstd"}} {
		if status&f.bit != 0 {
			return ", " + f.name
		}
	}
	return ""
}

func openKdumpFile(f File) (*kdumpFile, error) {
	k := &kdumpFile{File: f}
	if err := k.readHeader(); err != nil {
		return nil, err
	}
	if err := k.readSubHeader(); err != nil {
		return nil, err
	}
	total := k.bitmapBlocks * k.blockSize
	k.bitmap1 = (1 + k.subBlocks) * k.blockSize
	k.descs = k.bitmap1 + total
	k.bitmap2, k.bitmapLen = k.bitmap1, total
	need := int64((k.maxPFN + 7) / 8)
	if need <= total/2 { // two bitmaps: the machine's memory, and what of it was dumped
		k.bitmapLen = total / 2
		k.bitmap2 += k.bitmapLen
	}
	if k.bitmap2 >= f.Size || need > k.bitmapLen {
		return nil, &bin.FormatError{What: "kdump header", Off: 436, Msg: fmt.Sprintf("bitmap of %d blocks for %d pages in a file of %d bytes", k.bitmapBlocks, k.maxPFN, f.Size)}
	}
	return k, k.countPages()
}

func (k *kdumpFile) readHeader() error {
	var h [kdumpHeaderSize]byte
	if _, err := k.R.ReadAt(h[:], 0); err != nil {
		return &bin.FormatError{What: "kdump header", Msg: err.Error()}
	}
	c := bin.NewCursor(h[8:], binary.LittleEndian)
	k.version = int32(c.U32())
	c.Skip(4 * 65)
	k.machine = cString(c.Bytes(65))
	c.Seek(424 - 8)
	k.status = c.U32()
	k.blockSize, k.subBlocks, k.bitmapBlocks = int64(c.U32()), int64(c.U32()), int64(c.U32())
	k.maxPFN = uint64(c.U32())
	switch {
	case k.blockSize < 512 || k.blockSize > maxBlock || k.blockSize&(k.blockSize-1) != 0:
		return &bin.FormatError{What: "kdump header", Off: 428, Msg: fmt.Sprintf("page size %d", k.blockSize)}
	case k.version < 0 || k.version > 100 || k.subBlocks > 1<<20 || k.bitmapBlocks > 1<<40/k.blockSize:
		return &bin.FormatError{What: "kdump header", Off: 8, Msg: fmt.Sprintf("version %d with %d and %d blocks", k.version, k.subBlocks, k.bitmapBlocks)}
	}
	return nil
}

// readSubHeader reads what each version added.
func (k *kdumpFile) readSubHeader() error {
	var b [104]byte
	n, err := k.R.ReadAt(b[:], k.blockSize)
	if n < len(b) && !errors.Is(err, io.EOF) {
		return &bin.FormatError{What: "kdump sub-header", Off: k.blockSize, Msg: err.Error()}
	}
	c := bin.NewCursor(b[:], binary.LittleEndian)
	k.end = k.maxPFN
	if k.version >= 1 {
		k.physBase, k.level = c.U64(), int32(c.U32())
	}
	if k.version >= 2 {
		k.split = c.U32() != 0
		k.start, k.end = c.U64(), c.U64()
	}
	if k.version >= 3 {
		k.infoOff, k.infoSize = int64(c.U64()), c.U64()
	}
	if k.version >= 4 {
		k.noteOff, k.noteSize = int64(c.U64()), c.U64()
	}
	if k.version >= 6 {
		c.Skip(16)
		start, end, maxPFN := c.U64(), c.U64(), c.U64()
		if maxPFN != 0 {
			k.start, k.end, k.maxPFN = start, end, maxPFN
		}
	}
	if !k.split {
		k.start, k.end = 0, k.maxPFN
	}
	if k.maxPFN > maxPFNs || k.start > k.maxPFN {
		return &bin.FormatError{What: "kdump sub-header", Off: k.blockSize, Msg: fmt.Sprintf("%d pages", k.maxPFN)}
	}
	return nil
}

// countPages fills the rank table: page descriptors stand in the order of the pages that were dumped.
func (k *kdumpFile) countPages() error {
	buf := make([]byte, min(256<<10, max(1, k.bitmapLen)))
	sum := uint64(0)
	for at := int64(0); at < int64((k.maxPFN+7)/8); {
		n, err := k.R.ReadAt(buf[:min(int64(len(buf)), k.bitmapLen-at)], k.bitmap2+at)
		if n == 0 {
			if err != nil && !errors.Is(err, io.EOF) {
				return &bin.FormatError{What: "kdump bitmap", Off: k.bitmap2 + at, Msg: err.Error()}
			}
			break // cut short in the bitmap: what is behind counts as not dumped
		}
		b := buf[:n]
		for len(b) > 0 {
			part := b[:min(len(b), rankBits/8)]
			if (at%(rankBits/8) == 0) && int64(len(k.rank)) <= at/(rankBits/8) {
				k.rank = append(k.rank, sum)
			}
			sum += ones(part)
			at += int64(len(part))
			b = b[len(part):]
		}
	}
	return nil
}

func ones(b []byte) (n uint64) {
	for len(b) >= 8 {
		n += uint64(bits.OnesCount64(binary.LittleEndian.Uint64(b)))
		b = b[8:]
	}
	for _, x := range b {
		n += uint64(bits.OnesCount8(x))
	}
	return n
}

// index gives a page's place among the descriptors.
func (k *kdumpFile) index(pfn uint64) (uint64, bool) {
	i, ok := k.before(pfn)
	if !ok || !k.split || k.start == 0 {
		return i, ok
	}
	first, _ := k.before(k.start)
	return i - first, i >= first
}

// before counts the dumped pages below pfn, and says if pfn is one itself.
func (k *kdumpFile) before(pfn uint64) (uint64, bool) {
	run := pfn / rankBits
	if run >= uint64(len(k.rank)) {
		return 0, false
	}
	block := k.part(&k.last2, k.bitmap2, run)
	byteAt, bit := pfn%rankBits/8, pfn%8
	if byteAt >= uint64(len(block)) {
		return 0, false
	}
	n := k.rank[run] + ones(block[:byteAt]) + uint64(bits.OnesCount8(block[byteAt]&(1<<bit-1)))
	return n, block[byteAt]>>bit&1 != 0
}

// part reads a run of a bitmap, if it is not the one that was asked last.
func (k *kdumpFile) part(last *bitmapPart, bitmap int64, run uint64) []byte {
	if at := int64(run) * (rankBits / 8); last.at != at+1 {
		b := append(last.b[:0], make([]byte, rankBits/8)...)
		n, _ := k.R.ReadAt(b[:max(0, min(rankBits/8, k.bitmapLen-at))], bitmap+at)
		last.b, last.at = b[:n], at+1
	}
	return last.b
}

// exists says if the first bitmap has the page: the machine had it, the dump may not.
func (k *kdumpFile) exists(pfn uint64) bool {
	if k.bitmap1 == k.bitmap2 || int64(pfn/8) >= k.bitmapLen {
		return false
	}
	block, byteAt := k.part(&k.last1, k.bitmap1, pfn/rankBits), pfn%rankBits/8
	return byteAt < uint64(len(block)) && block[byteAt]>>(pfn%8)&1 != 0 // unreadable is: does not exist
}

func (m *kdumpMemory) ranges() []Range {
	var out []Range
	for _, k := range m.files {
		if k.end > k.start {
			out = append(out, Range{k.start * m.bs, k.end * m.bs})
		}
	}
	return out
}

func (m *kdumpMemory) readPhys(p []byte, addr uint64) error {
	for len(p) > 0 {
		page, err := m.page(addr / m.bs)
		if err != nil {
			err.Addr = addr
			return err
		}
		n := copy(p, page[addr%m.bs:])
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// page gives a page's bytes, valid until the next call.
func (m *kdumpMemory) page(pfn uint64) ([]byte, *MissingError) {
	if b := m.cache.get(pfn); b != nil {
		return b, nil
	}
	reason := NotDumped
	for _, k := range m.files {
		if pfn < k.start || pfn >= k.end {
			continue
		}
		i, ok := k.index(pfn)
		if !ok {
			if k.exists(pfn) {
				reason = Excluded
			}
			continue
		}
		if e, ok := m.bad[pfn]; ok {
			return nil, &e
		}
		b, err := m.load(k, pfn, i)
		if err != nil {
			m.remember(pfn, *err)
		}
		return b, err
	}
	return nil, &MissingError{Reason: reason}
}

// maxBad bounds the errors that are kept: some megabytes.
const maxBad = 1 << 14

func (m *kdumpMemory) remember(pfn uint64, e MissingError) {
	if m.bad == nil || len(m.bad) >= maxBad {
		m.bad = map[uint64]MissingError{}
	}
	m.bad[pfn] = e
}

func (m *kdumpMemory) load(k *kdumpFile, pfn, index uint64) ([]byte, *MissingError) {
	var d [descSize]byte
	if _, err := k.R.ReadAt(d[:], k.descs+int64(index)*descSize); err != nil {
		return nil, &MissingError{Reason: FileEnds}
	}
	off, size := int64(binary.LittleEndian.Uint64(d[:])), binary.LittleEndian.Uint32(d[8:])
	flags := binary.LittleEndian.Uint32(d[12:])
	// Compressors make a page that does not compress a little larger, none of them twice as large.
	if off <= 0 || uint64(size) > 2*m.bs || size == 0 {
		if off == 0 && size == 0 { // an incomplete dump has descriptors that were never filled in
			return nil, &MissingError{Reason: Excluded, Err: errors.New("the dump is incomplete")}
		}
		return nil, &MissingError{Reason: Damaged, Err: &bin.FormatError{What: "page descriptor", Off: k.descs + int64(index)*descSize, Msg: fmt.Sprintf("offset %#x, size %d", off, size)}}
	}
	m.raw = append(m.raw[:0], make([]byte, size)...)
	if _, err := k.R.ReadAt(m.raw, off); err != nil {
		return nil, &MissingError{Reason: FileEnds}
	}
	page := m.cache.put(pfn)
	if err := m.unz.page(page, m.raw, flags); err != nil {
		m.cache.drop(pfn)
		return nil, &MissingError{Reason: Damaged, Err: fmt.Errorf("page at %#x of the file: %w", off, err)}
	}
	return page, nil
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
