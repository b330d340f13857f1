package traceevent

// sizeof reads what follows the word: a type, a field of the record, or an expression.
func (p *exprParser) sizeof() expr {
	p.expect("(")
	if t, n, ok := p.castAt(p.at); ok {
		p.at = n
		size := 8
		if t != nil && !t.mem {
			size = t.size
		}
		return constant(uint64(size), ulongType)
	}
	if p.peek().text == "REC" && p.peekAt(1).text == "->" && p.peekAt(3).text == ")" {
		f := p.f.Field(p.peekAt(2).text)
		if f == nil {
			p.fail("no field %s", p.peekAt(2).text)
		}
		p.at += 4
		return constant(uint64(f.Size), ulongType)
	}
	x := p.expr()
	p.expect(")")
	return constant(uint64(x.t.size), ulongType)
}

// typeWords are the words that C types are made of, beside struct, union and enum. Size 0 says nothing by itself.
var typeWords = map[string]ctyp{
	"unsigned": {0, true, false, false}, "signed": {}, "const": {}, "volatile": {}, "__force": {}, "__user": {}, "__kernel": {},
	"int": intType, "long": longType, "char": {size: 1}, "short": {size: 2}, "void": {size: 1, uns: true}, "bool": {size: 1, uns: true}, "_Bool": {size: 1, uns: true},
	"u8": {size: 1, uns: true}, "u16": {size: 2, uns: true}, "u32": {size: 4, uns: true}, "u64": ulongType,
	"s8": {size: 1}, "s16": {size: 2}, "s32": intType, "s64": longType,
	"__u8": {size: 1, uns: true}, "__u16": {size: 2, uns: true}, "__u32": {size: 4, uns: true}, "__u64": ulongType,
	"__s8": {size: 1}, "__s16": {size: 2}, "__s32": intType, "__s64": longType,
	"uint8_t": {size: 1, uns: true}, "uint16_t": {size: 2, uns: true}, "uint32_t": {size: 4, uns: true}, "uint64_t": ulongType,
	"int8_t": {size: 1}, "int16_t": {size: 2}, "int32_t": intType, "int64_t": longType,
	"__be16": {size: 2, uns: true}, "__be32": {size: 4, uns: true}, "__le16": {size: 2, uns: true}, "__le32": {size: 4, uns: true}, "__le64": ulongType,
	"size_t": ulongType, "ssize_t": longType, "uintptr_t": ulongType, "loff_t": longType, "sector_t": ulongType, "ino_t": ulongType, "pgoff_t": ulongType,
	"pid_t": intType, "dev_t": {size: 4, uns: true}, "gfp_t": {size: 4, uns: true}, "umode_t": {size: 2, uns: true}, "dma_addr_t": ulongType,
	"phys_addr_t": ulongType, "blk_opf_t": {size: 4, uns: true}, "uid_t": {size: 4, uns: true}, "gid_t": {size: 4, uns: true},
}

// TypeWord gives the size of a number that one word is the type of, among those that C and the kernel have: u64, gfp_t.
func TypeWord(name string) (size int, unsigned, ok bool) {
	t := typeWords[name]
	return t.size, t.uns, t.size > 0 && name != "void"
}

// castAt reads "TYPE)" at a token. ok is false if that is an expression. The type is nil if its size is not known. n is
// where what is cast begins.
func (p *exprParser) castAt(at int) (t *ctyp, n int, ok bool) {
	var got ctyp
	known, words, stars, longs := false, 0, 0, 0
	for ; at < len(p.toks); at++ {
		k := p.toks[at]
		switch {
		case k.kind == tokIdent && (k.text == "struct" || k.text == "union" || k.text == "enum"):
			at++
			words++
			if k.text == "enum" {
				got, known = ctyp{size: 4, uns: true}, true
			}
			continue
		case k.kind == tokIdent && stars == 0:
			w, is := typeWords[k.text]
			if !is && (words > 0 || !p.startsOperand(at+2) || p.tokenAt(at+1) != ")" && p.tokenAt(at+1) != "*") || k.text == "REC" {
				return nil, 0, false
			}
			words++
			known = known || is
			got.uns = got.uns || w.uns
			if k.text == "long" {
				longs++
			}
			if w.size > 0 && (k.text != "int" || got.size == 0) {
				got.size = w.size
			}
			continue
		case k.text == "*" && words > 0:
			stars++
			continue
		case k.text == ")" && words > 0:
			switch {
			case stars > 0:
				got.mem = true
				got.size = max(got.size, 1)
				if stars > 1 {
					got.size = 8
				}
				return &got, at + 1, true
			case !known:
				return nil, at + 1, true
			case got.size == 0: // unsigned, alone
				got.size = 4
			}
			return &got, at + 1, true
		}
		break
	}
	return nil, 0, false
}

func (p *exprParser) tokenAt(at int) string {
	if at < len(p.toks) {
		return p.toks[at].text
	}
	return ""
}

// startsOperand says if a token begins an operand and is no operator that could stand between two.
func (p *exprParser) startsOperand(at int) bool {
	if at >= len(p.toks) {
		return false
	}
	k := p.toks[at]
	return k.kind != tokPunct || k.text == "(" || k.text == "~" || k.text == "!" || k.text == ")"
}
