package initramfs

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/oracle"
)

func archive(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, err := range []error{
		w.Bytes("/init", 0o755, []byte("#!")),
		w.Bytes("a/b/c.txt", 0o644, []byte("hello")),
		w.Bytes("a/b/d.txt", 0o600, nil),
		w.Dir("a/b", 0o700), // already there: parents are made once
		w.Symlink("bin/sh", "../init"),
		w.Char("dev/console", 0o600, 5, 1),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func TestWriter(t *testing.T) {
	b := archive(t)
	if len(b)%512 != 0 {
		t.Errorf("length %d is not padded", len(b))
	}
	const first = "070701" + "00000001" + "000081ed" + "00000000" + "00000000" + "00000001" + "00000000" + "00000002" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" + "init\x00\x00" + "#!\x00\x00" + "070701"
	if got := string(b[:len(first)]); got != first {
		t.Errorf("got  %q\nwant %q", got, first)
	}
	if !bytes.Equal(b, archive(t)) {
		t.Error("equal input, other bytes")
	}
}

// TestCpio has the archive read by cpio(1).
func TestCpio(t *testing.T) {
	cpio := oracle.Path(t, "cpio")
	cmd := exec.Command(cpio, "-itv", "--quiet", "-n")
	cmd.Stdin = bytes.NewReader(archive(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		name, _, _ := strings.Cut(line, "->")
		got = append(got, f[0]+" "+strings.Fields(name)[len(strings.Fields(name))-1])
	}
	const want = "-rwxr-xr-x init|drwxr-xr-x a|drwxr-xr-x a/b|-rw-r--r-- a/b/c.txt|-rw------- a/b/d.txt|drwxr-xr-x bin|lrwxrwxrwx bin/sh|drwxr-xr-x dev|crw------- dev/console"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestWriterErrors(t *testing.T) {
	w := NewWriter(&bytes.Buffer{})
	if err := w.File("big", 0o644, 1<<32, strings.NewReader("")); err == nil {
		t.Error("4 GiB accepted")
	}
	if err := w.File("short", 0o644, 10, strings.NewReader("abc")); err == nil || !strings.Contains(err.Error(), "3 of 10 bytes") {
		t.Error("short file:", err)
	}
	if w.Close() == nil {
		t.Error("Close forgets the error")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"/init": "init", "../../etc/x": "etc/x", "./a//b/": "a/b", "/": ".", "": "."} {
		if got := clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
