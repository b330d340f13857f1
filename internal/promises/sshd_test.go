package promises

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/lab/topology/spec"
)

// hosts is a network whose nodes run sshd, and an ssh that reaches them by their names and nothing else on the machine.
type hosts struct {
	net  *topology.Network
	dir  string
	sshd map[string]*exec.Cmd
}

// sshPort is where sshd listens on the loopback of each node.
const sshPort = 2222

// newHosts builds a network and starts sshd in its nodes.
func newHosts(t *testing.T, text string, nodes ...string) *hosts {
	t.Helper()
	needRoot(t)
	daemon := unpackSSHD(t)
	for _, p := range []string{"ssh", "ssh-keygen", "nc", "nsenter", "nft"} {
		ktest.Oracle(t, p)
	}
	h := &hosts{dir: t.TempDir(), sshd: map[string]*exec.Cmd{}}
	topo, err := spec.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if h.net, err = topology.Build(topo); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.net.Close(); err != nil {
			t.Error(err)
		}
	})
	privilegeSeparation(t, h.dir)
	for _, key := range []string{"host", "user"} {
		do(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(h.dir, key))
	}
	public, err := os.ReadFile(filepath.Join(h.dir, "user.pub"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "authorized", string(public), 0o600)
	for _, n := range nodes {
		h.serve(t, daemon, n)
	}
	h.client(t, nodes)
	return h
}

func (h *hosts) write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// tmp is the folder for temporary files of a node: what fathom leaves there is seen.
func (h *hosts) tmp(node string) string { return filepath.Join(h.dir, "tmp-"+node) }

// serve starts sshd in a node.
func (h *hosts) serve(t *testing.T, daemon []string, node string) {
	t.Helper()
	if err := os.Mkdir(h.tmp(node), 0o777); err != nil {
		t.Fatal(err)
	}
	conf := h.write(t, "sshd-"+node, fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 100
SetEnv TMPDIR=%s
`, sshPort, filepath.Join(h.dir, "host"), filepath.Join(h.dir, "authorized"), h.tmp(node)), 0o600)
	args := append([]string{"--net=" + h.netns(t, node)}, daemon...)
	cmd := exec.Command("nsenter", append(args, "-D", "-e", "-f", conf)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := start(t, cmd); err != nil {
		t.Fatal(err)
	}
	h.sshd[node] = cmd
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("sshd of %s:\n%s", node, log.String())
		}
	})
}

// netns is the path of a node's namespace, for others to enter.
func (h *hosts) netns(t *testing.T, node string) string {
	t.Helper()
	ns, ok := h.net.NS(node)
	if !ok {
		t.Fatalf("no node %s", node)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD())
}

// client writes a program ssh, with the configuration that a person would have.
func (h *hosts) client(t *testing.T, nodes []string) {
	t.Helper()
	real := ktest.Oracle(t, "ssh")
	if err := os.Mkdir(filepath.Join(h.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	var conf strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&conf, "Host %s\n  ProxyCommand nsenter --net=%s nc 127.0.0.1 %d\n", n, h.netns(t, n), sshPort)
	}
	fmt.Fprintf(&conf, "Host *\n  User root\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n",
		filepath.Join(h.dir, "user"), filepath.Join(h.dir, "known"))
	file := h.write(t, "ssh_config", conf.String(), 0o600)
	h.write(t, "bin/ssh", fmt.Sprintf("#!/bin/sh\nexec %s -F %s \"$@\"\n", real, file), 0o755)
	for _, n := range nodes {
		wait(t, "sshd of "+n, func() bool { return h.ssh(n, "true") == nil })
	}
}

// ssh runs a command on a node.
func (h *hosts) ssh(node, command string) error {
	return exec.Command(filepath.Join(h.dir, "bin", "ssh"), node, command).Run()
}

// env is the environment in which fathom finds that ssh.
func (h *hosts) env() []string {
	return append(os.Environ(), "PATH="+filepath.Join(h.dir, "bin")+":"+os.Getenv("PATH"))
}

// command is fathom on the nodes, started by this test.
func (h *hosts) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.Command(fathom(t), args...)
	cmd.Env = h.env()
	return cmd
}

// start starts a process that is killed when the test has ended, however it does. The kernel ties it to the thread that starts
// it, which therefore does nothing else: those that enter namespaces end before.
func start(t *testing.T, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		<-t.Context().Done()
	}()
	return <-started
}

// nothingLeft waits until nothing of fathom is on a node: no process, and no file.
func (h *hosts) nothingLeft(t *testing.T, node string) {
	t.Helper()
	wait(t, "no process on "+node, func() bool { return len(h.far(t, node)) == 0 })
	wait(t, "no file on "+node, func() bool {
		list, err := os.ReadDir(h.tmp(node))
		return err == nil && len(list) == 0
	})
}

// far are the processes of fathom on a node: they are in its namespace, and have its folder for temporary files.
func (h *hosts) far(t *testing.T, node string) (pids []int) {
	t.Helper()
	list, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	mark := []byte("\x00TMPDIR=" + h.tmp(node) + "\x00")
	for _, e := range list {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// wait waits for a condition.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	eventually(t, func() string {
		if ok() {
			return ""
		}
		return what
	})
}

// unpackSSHD gives the command line of Debian's sshd. Its package is unpacked into the cache, not installed, which would start
// a server on this machine.
func unpackSSHD(t *testing.T) []string {
	t.Helper()
	if p, err := exec.LookPath("/usr/sbin/sshd"); err == nil {
		return []string{p}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(cache, "fathom", "openssh-server")
	daemon := filepath.Join(root, "usr", "sbin", "sshd")
	libs, _ := filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-gnu"))
	if _, err := os.Stat(daemon); err != nil || len(libs) != 1 {
		if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
			t.Fatal(err)
		}
		tmp, err := os.MkdirTemp(filepath.Dir(root), "tmp-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(tmp)
		get := exec.Command("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "openssh-server", "libwrap0")
		get.Dir = tmp
		if out, err := get.CombinedOutput(); err != nil {
			ktest.Missing(t, fmt.Sprintf("apt-get download openssh-server: %v: %s", err, out))
		}
		debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
		for _, d := range debs {
			do(t, "dpkg", "-x", d, filepath.Join(tmp, "root"))
		}
		os.RemoveAll(root)
		if err := os.Rename(filepath.Join(tmp, "root"), root); err != nil {
			t.Fatal(err)
		}
		if libs, _ = filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-gnu")); len(libs) != 1 {
			t.Fatalf("the packages have libraries in %v", libs)
		}
	}
	return []string{"env", "LD_LIBRARY_PATH=" + libs[0], daemon}
}

// privilegeSeparation gives sshd what it wants of the machine, in the mount namespace of these tests alone: a user, and an empty
// folder.
func privilegeSeparation(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("\nsshd:")) {
		return
	}
	file := filepath.Join(dir, "passwd")
	if err := os.WriteFile(file, append(b, "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, "/etc/passwd", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/etc/passwd", 0); err != nil {
			t.Error(err)
		}
	})
}

// childrenOf are the processes that a process started.
func childrenOf(t *testing.T, pid int) (out []int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(b)) {
		var n int
		if _, err := fmt.Sscan(f, &n); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// programsOf are the numbers of the BPF programs that a process holds.
func programsOf(pid int) (out []ebpf.ProgramID) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f) // it may be closed by now
		for l := range strings.Lines(string(b)) {
			var id ebpf.ProgramID
			if _, err := fmt.Sscanf(l, "prog_id: %d", &id); err == nil {
				out = append(out, id)
			}
		}
	}
	return out
}

// loaded says if one of the programs is still there.
func loaded(ids map[ebpf.ProgramID]bool) bool {
	for id, err := ebpf.ProgramGetNextID(0); err == nil; id, err = ebpf.ProgramGetNextID(id) {
		if ids[id] {
			return true
		}
	}
	return false
}
