package defs

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/btftypes"
	"github.com/fathom-trace/fathom/internal/oracle"
)

var (
	opens   = regexp.MustCompile(`^(?:struct|union) (\w+) \{$`)
	place   = regexp.MustCompile(`/\* +(\d+)(?:: *(\d+))? +(\d+) \*/$`)
	hole    = regexp.MustCompile(`/\* XXX (\d+) (bytes?|bits?) hole`)
	padding = regexp.MustCompile(`/\* (bit_)?padding: (\d+)(?: bits)? \*/$`)
	total   = regexp.MustCompile(`/\* size: (\d+), cachelines: (\d+), members: (\d+) \*/$`)
)

// shape is what pahole and we say of a struct: places of its members in their order, "offset size" or "offset:bit size".
type shape struct {
	Places        []string
	Size, Members int // 0 of unions, of which it does not say that
	Hole, Padding int // bits: what is a hole of bits and what of bytes depends on the type of the bitfield before it for pahole
}

func (s *shape) add(ms []Slot) {
	for _, m := range ms {
		s.add(m.Members)
		p := strconv.Itoa(m.Off) + " " + strconv.Itoa(m.Size)
		if m.BitSize > 0 {
			p = strconv.Itoa(m.Off) + ":" + strconv.Itoa(m.BitOff) + " " + strconv.Itoa(m.Size)
		}
		s.Places = append(s.Places, p)
	}
}

// TestPahole: structs of the running kernel lie as pahole says.
func TestPahole(t *testing.T) {
	const file = "/sys/kernel/btf/vmlinux"
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel has no BTF")
	} else if err != nil {
		t.Fatal(err)
	}
	pahole := oracle.Path(t, "pahole")
	b, err := btftypes.Parse(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	types := btftypes.New(b, nil)
	out, err := exec.Command(pahole, file).Output() // it complains of newer kinds of BTF, which structs are not made of
	if err != nil {
		t.Fatal(err)
	}
	var want *shape
	var name string
	same := 0
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		l := s.Text()
		if m := opens.FindStringSubmatch(l); m != nil {
			name, want = m[1], &shape{}
			continue
		}
		if want == nil {
			continue
		}
		want.line(l)
		if l != "};" {
			continue
		}
		got, ok := shapeOf(types, name)
		if ok {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: -pahole +ours\n%s", name, diff)
			} else {
				same++
			}
		}
		want = nil
	}
	t.Logf("%d structs are the same", same)
	if same < 500 {
		t.Errorf("only %d structs were compared", same)
	}
}

// line takes what a line of pahole's says.
func (s *shape) line(l string) {
	number := func(t string) int { n, _ := strconv.Atoi(t); return n }
	if m := place.FindStringSubmatch(l); m != nil {
		p := m[1]
		if m[2] != "" {
			p += ":" + m[2]
		}
		s.Places = append(s.Places, p+" "+m[3])
	}
	if m := hole.FindStringSubmatch(l); m != nil && strings.HasPrefix(l, "\t/*") {
		if strings.HasPrefix(m[2], "bit") {
			s.Hole += number(m[1])
		} else {
			s.Hole += 8 * number(m[1])
		}
	}
	if m := padding.FindStringSubmatch(l); m != nil && strings.HasPrefix(l, "\t/*") {
		s.Padding += number(m[2])
		if m[1] == "" {
			s.Padding += 7 * number(m[2])
		}
	}
	if m := total.FindStringSubmatch(l); m != nil {
		s.Size, s.Members = number(m[1]), number(m[3])
	}
}

// shapeOf gives our shape of a struct; false where the kernel has more than one of that name.
func shapeOf(types *btftypes.Lookup, name string) (*shape, bool) {
	all := append(types.AllByName(ctype.KindStruct, name), types.AllByName(ctype.KindUnion, name)...)
	if len(all) != 1 {
		return nil, false
	}
	s, ok := all[0].(*ctype.Struct)
	if !ok || len(s.Members()) == 0 {
		return nil, false
	}
	l := NewLayout(s)
	x := &shape{Hole: 8*l.Holes + l.BitHoles, Padding: 8*l.Padding + l.BitPadding}
	if !s.Union {
		x.Size, x.Members = l.Size, len(l.Members)
	}
	x.add(l.Members)
	return x, true
}
