package dump

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/vmcore"
)

// Addresses of x86-64 (Documentation/arch/x86/x86_64/mm.rst, arch/x86/include/asm/pgtable_64_types.h).
const (
	kernelMap = 0xffffffff80000000 // where the kernel's image is linked: __START_KERNEL_map
	ptePhys   = 0x000ffffffffff000
	ptePSE    = 1 << 7
	pteOK     = 1 << 0
	pteGlobal = 1 << 8 // _PAGE_PROTNONE when not present
)

// errUnmapped is an address that no page table maps.
var errUnmapped = errors.New("no page is mapped there")

// space translates virtual addresses by walking page tables.
type space struct {
	core   *vmcore.Core
	root   uint64 // physical
	levels int    // 4 or 5
	sme    uint64 // bit that says "encrypted" in page table entries
	cache  map[uint64]uint64
	tables map[uint64]*[pageSize]byte
}

func (d *Dump) openSpace() error {
	pgd, ok := d.Info.Symbols["swapper_pg_dir"]
	if !ok {
		return errors.New("VMCOREINFO does not say where the page tables are: SYMBOL(swapper_pg_dir)")
	}
	base, ok := d.Info.Numbers["phys_base"]
	if !ok {
		return errors.New("VMCOREINFO does not say where the kernel was loaded: NUMBER(phys_base)")
	}
	d.space = space{core: d.Core, levels: 4, sme: uint64(d.Info.Numbers["sme_mask"]), cache: map[uint64]uint64{}, tables: map[uint64]*[pageSize]byte{}}
	if d.Info.Numbers["pgtable_l5_enabled"] != 0 {
		d.space.levels = 5
	}
	d.space.root = (pgd - kernelMap + uint64(base)) &^ (pageSize - 1)
	return nil
}

// maxTables bounds the page tables that are kept: 32 MiB.
const maxTables = 8192

func (s *space) entry(table uint64, i uint64) (uint64, error) {
	t := s.tables[table]
	if t == nil {
		t = new([pageSize]byte)
		if err := s.core.ReadPhys(t[:], table); err != nil {
			return 0, fmt.Errorf("read page table: %w", err)
		}
		if len(s.tables) >= maxTables {
			clear(s.tables)
		}
		s.tables[table] = t
	}
	return binary.LittleEndian.Uint64(t[8*i:]), nil
}

// translate gives the physical address. What is not present in the tables is an error.
func (s *space) translate(addr uint64) (uint64, error) {
	vpn := addr / pageSize
	if p, ok := s.cache[vpn]; ok {
		return p | addr%pageSize, nil
	}
	top := uint(12 + 9*s.levels - 1)
	if ext := int64(addr) >> top; ext != 0 && ext != -1 {
		return 0, errors.New("not a canonical address")
	}
	phys, err := s.walk(s.root, addr, pteOK|pteGlobal)
	if err != nil {
		return 0, err
	}
	if len(s.cache) >= 1<<16 {
		clear(s.cache)
	}
	s.cache[vpn] = phys &^ (pageSize - 1)
	return phys, nil
}

// walk goes through the tables from a root. An entry with any of the bits present maps something.
func (s *space) walk(root, addr, present uint64) (uint64, error) {
	table := root
	for level := s.levels; level > 0; level-- {
		shift := uint(12 + 9*(level-1))
		e, err := s.entry(table, addr>>shift&511)
		if err != nil {
			return 0, err
		}
		if e&present == 0 {
			return 0, errUnmapped
		}
		phys := e & ptePhys &^ s.sme
		if level == 1 || e&ptePSE != 0 && level <= 3 {
			mask := uint64(1)<<shift - 1
			return phys&^mask | addr&mask, nil
		}
		table = phys
	}
	return 0, errUnmapped
}

// userEnd is where addresses of user programs end at most: half of what five levels of tables reach.
const userEnd = 1 << 56

var _ kernel.UserMemory = (*Dump)(nil)

// ReadUser implements kernel.UserMemory. What was swapped out, or never touched, is not there.
func (d *Dump) ReadUser(p []byte, pgd, addr uint64) error {
	root, err := d.space.translate(pgd)
	if err != nil {
		return &kernel.FaultError{Addr: pgd, Err: err}
	}
	for len(p) > 0 {
		if addr >= userEnd {
			return &kernel.FaultError{Addr: addr, Err: errUnmapped}
		}
		n := min(uint64(len(p)), pageSize-addr%pageSize)
		phys, err := d.space.walk(root, addr, pteOK)
		if err == nil {
			err = d.Core.ReadPhys(p[:n], phys)
		}
		if err != nil {
			return &kernel.FaultError{Addr: addr, Err: err}
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

var _ kernel.UserPages = (*Dump)(nil)

// TranslateUser implements kernel.UserPages.
func (d *Dump) TranslateUser(pgd, addr uint64) (uint64, error) {
	root, err := d.space.translate(pgd)
	if err == nil && addr >= userEnd {
		err = errUnmapped
	}
	if err == nil {
		root, err = d.space.walk(root, addr, pteOK)
	}
	if err != nil {
		return 0, &kernel.FaultError{Addr: addr, Err: err}
	}
	return root, nil
}
