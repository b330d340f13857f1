package promises

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSameBytes: what reads gives the same bytes each time, however many CPUs it has, whoever reads and wherever.
func TestSameBytes(t *testing.T) {
	bin := fathom(t)
	at := func(pattern string) []string {
		names, err := filepath.Glob("../../" + pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		for i, n := range names {
			names[i] = absolute(t, n)
		}
		return names
	}
	var asked [][]string
	ask := func(files []string, lines ...string) {
		for _, f := range files {
			for _, line := range lines {
				var args []string
				for _, w := range strings.Fields(line) {
					args = append(args, strings.ReplaceAll(w, "FILE", f))
				}
				asked = append(asked, args)
			}
		}
	}
	ask(at("record/perfdata/testdata/*.data"),
		"view FILE", "view FILE -j", "view FILE --csv", "view FILE --stats", "view FILE --to chrome -o OUT", "view FILE --to perfetto -o OUT", "view FILE --to ctf -o OUT", "view FILE --html OUT")
	ask(at("record/testdata/lttng-ust"), "view FILE", "view FILE -j", "view FILE --stats", "view FILE --html OUT")
	ask(at("oops/testdata/*.txt"), "explain FILE", "explain -j FILE")
	ask(at("answers/packet/testdata/*.json"), "packet explain FILE", "packet explain -j FILE", "packet explain --html OUT FILE", "packet explain -w OUT FILE", "packet explain --chrome OUT FILE")
	ask([]string{""}, "help lang", "help tools", "explain errno 1 2 3", "explain drop NO_SOCKET", "trace -d asm -e BEGIN{@[comm,pid]=hist(nsecs);@x=count();}", "completion bash", "lab config")
	bytes := 0
	for _, args := range asked {
		first := said(t, bin, args, "GOMAXPROCS=1", "TZ=UTC")
		for range times(t, 1)/100 + 1 {
			again := said(t, bin, args, "GOMAXPROCS=8", "TZ=Asia/Tokyo")
			if again != first {
				t.Errorf("fathom %s says something else the second time", strings.Join(args, " "))
			}
		}
		bytes += len(first)
	}
	measured(t, "%d ways to read %d KB: the same bytes each time", len(asked), bytes>>10)
}

// said is what a command prints, and what it writes.
func said(t *testing.T, bin string, args []string, env ...string) string {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	var words []string
	for _, a := range args {
		words = append(words, strings.ReplaceAll(a, "OUT", out))
	}
	cmd := exec.Command(bin, words...)
	cmd.Env = append(os.Environ(), env...)
	got := run(t, cmd)
	if got.code != 0 {
		t.Fatalf("fathom %s: exit code %d\n%s", strings.Join(args, " "), got.code, got.stderr)
	}
	all := strings.ReplaceAll(got.stdout+got.stderr, dir, "")
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all += strings.TrimPrefix(name, dir) + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
