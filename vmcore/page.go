package vmcore

import (
	"errors"
	"fmt"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// decompressor holds what the libraries can use again from page to page.
type decompressor struct {
	zlib inflater
	zstd *zstd.Decoder
}

var (
	errShort = errors.New("decompresses to less than a page")
	errLong  = errors.New("does not end with the page")
)

// page decompresses raw into dst, which is one page.
func (d *decompressor) page(dst, raw []byte, flags uint32) error {
	n, err := 0, error(nil)
	switch {
	case flags&pageZlib != 0:
		n, err = d.zlib.page(dst, raw)
	case flags&pageLZO != 0:
		n, err = lzo.Decompress(raw, dst)
	case flags&pageSnappy != 0:
		n, err = unsnappy(dst, raw)
	case flags&pageZstd != 0:
		n, err = d.unzstd(dst, raw)
	default:
		n = copy(dst, raw)
	}
	if err != nil {
		return err
	}
	if n < len(dst) {
		return errShort
	}
	return nil
}

func unsnappy(dst, raw []byte) (int, error) {
	n, err := s2.DecodedLen(raw)
	if err != nil || n != len(dst) {
		return 0, fmt.Errorf("snappy page of %d bytes: %w", n, errors.Join(err, errShort))
	}
	_, err = s2.Decode(dst, raw)
	return n, err
}

func (d *decompressor) unzstd(dst, raw []byte) (n int, err error) {
	if d.zstd == nil {
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock*2))
		if err != nil {
			return 0, err
		}
	}
	out, err := d.zstd.DecodeAll(raw, dst[:0])
	if err == nil && len(out) > len(dst) {
		err = errors.New("decompresses to more than a page")
	}
	return len(out), err
}

// cacheBytes is how much decompressed memory is kept: what a first page touches (13 MB) fits.
const cacheBytes = 24 << 20

// pageCache keeps pages until it is full, then forgets the oldest.
type pageCache struct {
	size  uint64
	slot  map[uint64]int
	pages [][]byte
	pfns  []uint64
	next  int
}

func (c *pageCache) init(size uint64) {
	c.size, c.slot = size, map[uint64]int{}
}

func (c *pageCache) get(pfn uint64) []byte {
	if i, ok := c.slot[pfn]; ok {
		return c.pages[i]
	}
	return nil
}

// put makes room for a page and returns it to be filled.
func (c *pageCache) put(pfn uint64) []byte {
	i := c.next
	if uint64(len(c.pages)+1)*c.size <= cacheBytes {
		i = len(c.pages)
		c.pages = append(c.pages, make([]byte, c.size))
		c.pfns = append(c.pfns, 0)
	} else {
		if c.slot[c.pfns[i]] == i {
			delete(c.slot, c.pfns[i])
		}
		c.next = (i + 1) % len(c.pages)
	}
	c.pfns[i] = pfn
	c.slot[pfn] = i
	return c.pages[i]
}

func (c *pageCache) drop(pfn uint64) { delete(c.slot, pfn) }
