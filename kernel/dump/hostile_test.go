package dump_test

import (
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/internal/hostile"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/vmcore"
)

// TestHostile cuts a dump short and spoils bytes of it: the page may say less, and never panics or hangs.
func TestHostile(t *testing.T) {
	c := killGuest(t, kernels[0])
	f, err := os.Open(c.path("kdump-zlib"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	ways := 60
	if n, err := strconv.Atoi(os.Getenv(hostile.Env)); err == nil {
		ways = n
	}
	for i := range ways {
		size, at := st.Size(), []spot(nil)
		if i%2 == 0 {
			size = size * int64(i+1) / int64(ways+1)
		} else {
			for range 2000 {
				at = append(at, spot{rng.Int64N(size), byte(rng.Uint32())})
			}
			slices.SortFunc(at, func(a, b spot) int { return int(a.off - b.off) })
		}
		start := time.Now()
		mem, err := vmcore.Open(vmcore.File{R: spoiled{f, size, at}, Size: size})
		if err != nil {
			continue
		}
		d, err := dump.Open(mem)
		if err != nil {
			continue
		}
		s := core.New(d, "spoiled")
		_ = s.Page(io.Discard)
		for _, command := range []string{"foreach bt", "files 1", "mount", "net", "irq", "kmem -s"} {
			_ = s.Run(io.Discard, strings.Fields(command))
		}
		_, _ = script.Run(t.Context(), script.Options{On: d, Source: &syntax.Source{Name: "stdin", Text: everyIterator}, Stdout: io.Discard, Stderr: io.Discard})
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("spoiled in way %d: took %s", i, took)
		}
	}
}

// everyIterator runs over all there is.
const everyIterator = `iter:task { @[comm, kstack] = count(); @h[kstack] = hist(pid); } iter:task_file { @f[path(ctx.file.f_path)] = count(); } iter:task_vma { @v = count(); }
	iter:tcp, iter:udp, iter:unix, iter:netlink, iter:bpf_map, iter:bpf_prog { @s[probe] = count(); }`

// spoiled is a file with an end and some bytes of our own.
type spoiled struct {
	f    *os.File
	size int64
	at   []spot // ascending
}

// spot is a byte of a file that is another.
type spot struct {
	off int64
	b   byte
}

func (s spoiled) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	n, err := s.f.ReadAt(p[:min(int64(len(p)), s.size-off)], off)
	if n < len(p) && err == nil {
		err = io.EOF
	}
	i, _ := slices.BinarySearchFunc(s.at, off, func(s spot, off int64) int { return int(s.off - off) })
	for ; i < len(s.at) && s.at[i].off < off+int64(n); i++ {
		p[s.at[i].off-off] = s.at[i].b
	}
	return n, err
}
