package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/internal/oracle"
)

// completed runs __complete and gives the proposals without their descriptions.
func completed(t *testing.T, args ...string) []string {
	t.Helper()
	var out, msgs bytes.Buffer
	r := root()
	proposeAll(r)
	r.SetArgs(append([]string{cobra.ShellCompRequestCmd}, args...))
	r.SetOut(&out)
	r.SetErr(&msgs)
	if err := r.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if s := msgs.String(); strings.Contains(s, "rror") || strings.Count(s, "\n") > 1 {
		t.Errorf("%q: %s", args, s)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	var list []string
	for _, l := range lines[:len(lines)-1] { // the last is the directive
		l, _, _ = strings.Cut(l, "\t")
		list = append(list, l)
	}
	return list
}

func TestCompletion(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for _, c := range []struct{ args, want string }{
		{"lab try dropped", "dropped-packet"},
		{"explain errno EPROTON", "EPROTONOSUPPORT"},
		{"explain drop IP_RPF", "IP_RPFILTER"},
		{"explain syscall sendto", "sendto"},
		{"packet --color n", "never"},
		{"view --to perf", "perfetto"},
		{"trace -d pas", "passes"},
		{"trace -l tracep", "tracepoint:"},
		{"trace opensn", "opensnoop"},
		{"help E-PE", "E-PERM"},
		{"help lan", "lang"},
		{"watch sysc", "sysctl"},
		{"core dump whati", "whatis"},
		{"lab boot --kernel debian-6.12-", "debian-6.12-cloud"},
		{"completion z", "zsh"},
		{"trace --strict -", "-e"},
	} {
		if got := completed(t, strings.Fields(c.args)...); !slices.Contains(got, c.want) {
			t.Errorf("%s: %q, want %s among them", c.args, got, c.want)
		}
	}
	for _, args := range [][]string{{"nic", "--for", ""}, {"explain", "config", ""}} {
		if got := completed(t, args...); len(got) > 0 {
			t.Errorf("%q: %q", args, got)
		}
	}
}

// TestCompletionOfKernel asks for names of the kernel that runs, of which every one with its types has these.
func TestCompletionOfKernel(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("the kernel does not tell its types")
	}
	for _, c := range []struct{ args, want string }{
		{"explain struct task_struc", "task_struct"},
		{"trace -l kprobe:vfs_rea", "kprobe:vfs_read"},
		{"trace -e fentry:vfs_write", "fentry:vfs_write"},
		{"trace -l rawtracepoint:sched_switc", "rawtracepoint:sched_switch"},
		{"nic l", "lo"},
		{"watch addr dev l", "lo"},
	} {
		if got := completed(t, strings.Fields(c.args)...); !slices.Contains(got, c.want) {
			t.Errorf("%s: %q, want %s among them", c.args, got, c.want)
		}
	}
	if got := completed(t, "trace", "-l", "kprobe:"); len(got) == 0 || len(got) > 300 {
		t.Errorf("%d proposals for all functions", len(got))
	}
}

// TestCompletionOfEverything asks all proposals there are, with and without arguments before: none fails, which a shell
// would never show, and none is endless.
func TestCompletionOfEverything(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for _, table := range []map[string]proposal{byValue(), byFlag(), byVerb()} {
		for key, p := range table {
			for _, args := range [][]string{nil, {"dev"}, {"a", "b", "c"}} {
				if got, _ := p(args, ""); len(got) > 1000 {
					t.Errorf("%s: %d proposals", key, len(got))
				}
			}
		}
	}
}

// TestProposalsAreOfVerbs holds the tables to the verbs and flags there are.
func TestProposalsAreOfVerbs(t *testing.T) {
	known := map[string]bool{}
	values := map[string]bool{}
	for _, c := range verbs() {
		path := strings.TrimPrefix(c.CommandPath(), "fathom ")
		verb, _, _ := strings.Cut(path, " ")
		known[path] = true
		c.Flags().VisitAll(func(f *pflag.Flag) {
			known[path+" --"+f.Name], known[verb+" --"+f.Name], known["--"+f.Name] = true, true, true
			value, _ := pflag.UnquoteUsage(f)
			values[value] = true
		})
	}
	for _, table := range []map[string]proposal{byFlag(), byVerb()} {
		for key := range table {
			if !known[key] {
				t.Errorf("there is no %s", key)
			}
		}
	}
	for key := range byValue() {
		if !values[key] {
			t.Errorf("no flag has a value %s", key)
		}
	}
}

// TestBash has a real bash complete command lines by the script that is printed.
func TestBash(t *testing.T) {
	bash := oracle.Path(t, "bash")
	const lib = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(lib); err != nil {
		oracle.Missing(t, "bash-completion")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(dir, "fathom")); err != nil {
		t.Fatal(err)
	}
	var script bytes.Buffer
	r := root()
	r.SetArgs([]string{"completion", "bash"})
	r.SetOut(&script)
	if err := r.Execute(); err != nil {
		t.Fatal(err)
	}
	// What readline does: words divided at COMP_WORDBREAKS, then the function that complete -F names.
	const ask = `
press() { # as readline: words are cut at colons, too
	COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=() COMP_TYPE=9 COMP_KEY=9
	local w part
	for w in $1; do
		while [[ $w == *:* ]]; do part=${w%%:*}; COMP_WORDS+=("$part" ":"); w=${w#*:}; done
		[[ -n $w ]] && COMP_WORDS+=("$w")
	done
	[[ $1 == *" " ]] && COMP_WORDS+=("")
	COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
	compopt() { :; }
	__start_fathom
	printf '%s\n' "$1=${COMPREPLY[*]%% *}"
}
press 'fathom lab tr'
press 'fathom view --to perf'
press 'fathom lab try dropped'
press 'fathom trace -l tracepo'
`
	cmd := exec.Command(bash, "--norc", "-c", "source "+lib+"\n"+script.String()+ask)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "XDG_CACHE_HOME="+dir)
	var msgs bytes.Buffer
	cmd.Stderr = &msgs
	out, err := cmd.Output()
	if err != nil || msgs.Len() > 0 {
		t.Fatalf("bash: %v\n%s", err, msgs.String())
	}
	const want = `fathom lab tr=try
fathom view --to perf=perfetto
fathom lab try dropped=dropped-packet
fathom trace -l tracepo=tracepoint:
`
	if string(out) != want {
		t.Errorf("bash proposes\n%s\nnot\n%s", out, want)
	}
}
