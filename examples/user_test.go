package examples_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// userRuns are the tools that watch user programs, each with a program that does what it looks for.
var userRuns = []struct {
	name, want string
	work       func(t *testing.T, stop chan struct{})
}{
	{"bashreadline", `(?m)^\d\d:\d\d:\d\d +\d+ +echo typed_in_a_shell$`, interactive},
	{"gethostlatency", `(?m) getent +\d+\.\d{3} localhost$`, repeat("getent", "ahosts", "localhost")},
	{"ssllatency", `(?s)@usecs\[SSL_(read|write|do_handshake)\]:\s+\[`, tls},
	{"sslsnoop", `(?m)^\d+ +\d+ +openssl +write +\d+ 6$`, tls},
	{"threadsnoop", `(?m) threads +worker$`, threads},
}

// TestUserTools runs on the machine at hand: guests have no programs but the test.
func TestUserTools(t *testing.T) {
	if ktest.InGuest() {
		t.Skip("a guest has no programs and libraries to look at")
	}
	ktest.Need(t, ktest.Uprobe, ktest.Ringbuf)
	for _, tt := range userRuns {
		t.Run(tt.name, func(t *testing.T) {
			defer meanwhile(t, tt.work)()
			prints(t, tt.name, tt.want)
		})
	}
}

// repeat runs a command over and over.
func repeat(name string, args ...string) func(*testing.T, chan struct{}) {
	return func(t *testing.T, stop chan struct{}) {
		for {
			select {
			case <-stop:
				return
			case <-time.After(30 * time.Millisecond):
				if b, err := exec.Command(name, args...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", name, err, b)
					return
				}
			}
		}
	}
}

// interactive types into a shell, on a terminal of its own: otherwise bash reads without readline.
func interactive(t *testing.T, stop chan struct{}) {
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer ptm.Close()
	n, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Error(err)
		return
	}
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Error(err)
		return
	}
	bash := exec.Command("bash", "--norc", "--noprofile", "-i")
	bash.Stdin, bash.Stdout, bash.Stderr = pts, pts, pts
	bash.Env = append(os.Environ(), "TERM=dumb", "HISTFILE=")
	bash.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	err = bash.Start()
	pts.Close()
	if err != nil {
		t.Error(err)
		return
	}
	defer bash.Wait()
	defer bash.Process.Kill()
	go func() { // what the shell shows is not wanted, but must go
		b := make([]byte, 4096)
		for {
			if _, err := ptm.Read(b); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-stop:
			return
		case <-time.After(100 * time.Millisecond):
			ptm.WriteString("echo typed_in_a_shell\n")
		}
	}
}

// tls writes six bytes through OpenSSL on the loopback, over and over.
func tls(t *testing.T, stop chan struct{}) {
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key"), filepath.Join(dir, "cert")
	b, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=fathom",
		"-keyout", key, "-out", cert).CombinedOutput()
	if err != nil {
		t.Errorf("openssl req: %v\n%s", err, b)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Error(err)
		return
	}
	addr := l.Addr().String()
	l.Close()
	server := exec.Command("openssl", "s_server", "-quiet", "-accept", addr, "-key", key, "-cert", cert)
	if err := server.Start(); err != nil {
		t.Error(err)
		return
	}
	defer server.Wait()
	defer server.Process.Kill()
	for {
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
		client := exec.Command("openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", addr)
		in, err := client.StdinPipe()
		if err != nil || client.Start() != nil {
			t.Error("openssl s_client does not start")
			return
		}
		time.Sleep(30 * time.Millisecond)
		fmt.Fprint(in, "hello\n")
		in.Close()
		client.Wait() // fails until the server listens
	}
}

// threads runs a program that starts one.
func threads(t *testing.T, stop chan struct{}) {
	dir := t.TempDir()
	src, prog := filepath.Join(dir, "threads.c"), filepath.Join(dir, "threads")
	text := "#include <pthread.h>\nvoid *worker(void *p) { return p; }\nint main(void) { pthread_t t; pthread_create(&t, 0, worker, 0); pthread_join(t, 0); return 0; }\n"
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Error(err)
		return
	}
	if b, err := exec.Command("gcc", "-O1", "-o", prog, src, "-lpthread").CombinedOutput(); err != nil {
		t.Errorf("gcc: %v\n%s", err, b)
		return
	}
	repeat(prog)(t, stop)
}
