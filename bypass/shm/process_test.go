package shm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// role is set in a process that the tests start: what it does, with the memory of the paths that follow.
const role = "FATHOM_SHM_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "write":
		flood(os.Args[1])
		return
	case "read":
		m, err := Open(os.Args[1])
		if err == nil {
			_, err = m.Reader(Spin)
		}
		fmt.Println("ready", err)
		select {}
	case "echo":
		if err := echo(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ktest.Main(m, ktest.Config{})
}

// flood sends numbered messages until it is killed.
func flood(path string) {
	m, err := Open(path)
	if err != nil {
		return
	}
	w, err := m.Writer(Mixed)
	fmt.Println("ready", err)
	var b [56]byte
	for i := uint64(0); err == nil; i++ {
		err = w.Send(context.Background(), numbered(b[:], i))
	}
}

// echo sends back.
func echo(in, out string) error {
	mi, err := Open(in)
	if err != nil {
		return err
	}
	mo, err := Open(out)
	if err != nil {
		return err
	}
	r, err := mi.Reader(Spin)
	if err != nil {
		return err
	}
	w, err := mo.Writer(Spin)
	if err != nil {
		return err
	}
	fmt.Println("ready <nil>")
	var b [64]byte
	for {
		n, err := r.Receive(context.Background(), b[:])
		if err == io.EOF {
			return errors.Join(w.Close(), r.Close())
		}
		if err == nil {
			err = w.Send(context.Background(), b[:n])
		}
		if err != nil {
			return err
		}
	}
}

// process starts one that plays a role and is ready when this returns.
func process(t testing.TB, what string, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), role+"="+what)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready <nil>\n" && line != "ready\n" {
		t.Fatalf("%s: %q, %v", what, line, err)
	}
	return cmd
}

// TestWriterDies kills a writer while it writes, again and again: what came before is read, whole and in order, then its death is
// told; the next writer goes on.
func TestWriterDies(t *testing.T) {
	for _, p := range []Policy{Block, Overwrite} {
		m := create(t, Config{Slots: 16, Slot: 56, Policy: p})
		r := reader(t, m, Mixed)
		var b [56]byte
		for round := range 4 {
			cmd := process(t, "write", "/proc/self/exe", m.Path())
			last, n := uint64(0), 0
			for {
				k, err := r.Receive(t.Context(), b[:])
				if errors.Is(err, ErrPeerGone) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if i := number(t, b[:k]); n > 0 && (i <= last || p == Block && i != last+1) {
					t.Fatalf("%v, round %d: %d after %d", p, round, i, last)
				} else {
					last = i
				}
				if n++; n == 1000*(round+1) {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n < 1000 {
				t.Errorf("%v, round %d: %d messages", p, round, n)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReaderDies: a writer that waits for a reader is told of its death; one of several is left out.
func TestReaderDies(t *testing.T) {
	for _, readers := range []int{1, 2} {
		m := create(t, Config{Slots: 4, Readers: readers})
		w := writer(t, m, Futex)
		cmd := process(t, "read", "/proc/self/exe", m.Path())
		for range 4 {
			if err := w.Send(t.Context(), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.TrySend([]byte("y")); !errors.Is(err, ErrFull) {
			t.Error(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		err := w.Send(t.Context(), []byte("y"))
		if readers == 1 && !errors.Is(err, ErrPeerGone) || readers == 2 && err != nil {
			t.Errorf("%d readers: %v", readers, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestC exchanges messages with a program in C.
func TestC(t *testing.T) {
	gcc := ktest.Oracle(t, "gcc")
	bin := filepath.Join(t.TempDir(), "echo")
	if out, err := exec.Command(gcc, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-I.", "-o", bin, "testdata/echo.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range []Policy{Block, Drop, Overwrite} {
		to, from := create(t, Config{Slots: 64, Slot: 61, Policy: p}), create(t, Config{Slots: 64, Slot: 61, Policy: p})
		w, r := writer(t, to, Mixed), reader(t, from, Mixed)
		cmd := process(t, "", bin, to.Path(), from.Path())
		var b [61]byte
		for i := range uint64(20_000) {
			if err := w.Send(t.Context(), numbered(b[:8+i%54], i)); err != nil {
				t.Fatal(err)
			}
			var got [64]byte
			n, err := r.Receive(t.Context(), got[:])
			if err != nil || n != int(8+i%54) || number(t, got[:n]) != i {
				t.Fatalf("%v: message %d: %d bytes, %v", p, i, n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.Receive(t.Context(), b[:]); err != io.EOF {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkRoundTrip is a message of 64 bytes there and back between processes that spin.
func BenchmarkRoundTrip(b *testing.B) {
	to, from := create(b, Config{}), create(b, Config{})
	w, r := writer(b, to, Spin), reader(b, from, Spin)
	process(b, "echo", "/proc/self/exe", to.Path(), from.Path())
	var msg [64]byte
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Send(b.Context(), msg[:]); err != nil {
			b.Fatal(err)
		}
		if _, err := r.Receive(b.Context(), msg[:]); err != nil {
			b.Fatal(err)
		}
	}
}
