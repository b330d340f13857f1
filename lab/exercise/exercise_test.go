package exercise_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/exercise"
)

func TestMain(m *testing.M) { ktest.Main(m, ktest.Config{}) }

// solver finds an answer the way a person would: with the text and fathom.
type solver struct {
	t    *testing.T
	b    *exercise.Bench
	text string
}

func (s solver) fathom(args ...string) string {
	s.t.Helper()
	out, err := s.b.Run(s.t.Context(), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// trace runs a program for some seconds.
// trace runs a program until it has seen something.
func (s solver) trace(program string) (out string) {
	s.t.Helper()
	for _, long := range []string{"2s", "10s", "60s"} {
		if out = s.fathom("trace", "-e", program, "--for", long); strings.Contains(out, "@") {
			break
		}
	}
	return out
}

// find gives what a pattern's group matches.
func (s solver) find(pattern, in string) string {
	s.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(in)
	if m == nil {
		s.t.Fatalf("no %s in\n%s", pattern, in)
	}
	return m[1]
}

// mine leaves out the keys in which what a pattern's group matches is not a word of the problem, or that do not match: others lose
// packets, too, while tests run, and some of them nowhere.
func (s solver) mine(out, pattern string) string {
	word := regexp.MustCompile(pattern)
	var keep []string
	for line := range strings.SplitSeq(out, "\n") {
		m := word.FindStringSubmatch(line)
		if m == nil && strings.HasPrefix(line, "@") || m != nil && !regexp.MustCompile(`\b`+regexp.QuoteMeta(m[1])+`\b`).MatchString(s.text) {
			continue
		}
		keep = append(keep, line)
	}
	return strings.Join(keep, "\n")
}

// TestMine: of what was counted only what the problem names is left.
func TestMine(t *testing.T) {
	out := "Attached 1 probe\n@[skb_queue_purge_reason, ]: 900\n@[tcp_v4_rcv, eth0]: 700\n@[ip_rcv, ruff]: 5\n"
	if got, want := (solver{t: t, text: "host a has ruff"}).mine(out, `, (\w+)\]`), "Attached 1 probe\n@[ip_rcv, ruff]: 5\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// most gives the key of the largest value of lines "@name[key]: value".
func (s solver) most(name, out string) string {
	s.t.Helper()
	best, key := -1, ""
	for _, m := range regexp.MustCompile(`(?m)^@`+name+`\[(.*)\]: (\d+)$`).FindAllStringSubmatch(out, -1) {
		if n := atoi(m[2]); n > best {
			best, key = n, m[1]
		}
	}
	if key == "" {
		s.t.Fatalf("no @%s in\n%s", name, out)
	}
	return key
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = 10*n + int(c-'0')
	}
	return n
}

var solvers = map[string]func(s solver) string{
	"who-reads": func(s solver) string {
		file := s.find(`reads (\S+) again`, s.text)
		return s.most("", s.trace(`tracepoint:syscalls:sys_enter_openat /str(args.filename) == "`+file+`"/ { @[comm] = count(); }`))
	},
	"hist": func(s solver) string {
		out := s.trace(`tracepoint:syscalls:sys_exit_read /comm == "` + s.find(`Process (\S+) reads`, s.text) + `"/ { @ = hist(args.ret); }`)
		best, at := 0, ""
		for _, m := range regexp.MustCompile(`(?m)^\[(\w+), .*?\)\s+(\d+) `).FindAllStringSubmatch(out, -1) {
			if n := atoi(m[2]); n > best {
				best, at = n, m[1]
			}
		}
		return at
	},
	"closed-port": func(s solver) string {
		return s.most("", s.trace(`tracepoint:tcp:tcp_receive_reset { @[args.dport] = count(); }`))
	},
	"leaking-socket": func(s solver) string {
		out := s.trace(`tracepoint:syscalls:sys_enter_socket { @open[comm] = count(); } tracepoint:syscalls:sys_enter_close { @close[comm] = count(); }`)
		worst, who := 0, ""
		for name := range strings.SplitSeq(s.find(`processes (.*), one`, s.text), ", ") {
			d := atoi(s.find(`@open\[`+name+`\]: (\d+)`, out)) - atoi(s.find(`@close\[`+name+`\]: (\d+)`, out))
			if d > worst {
				worst, who = d, name
			}
		}
		return who
	},
	"who-kills": func(s solver) string {
		return s.most("", s.trace(`tracepoint:signal:signal_generate /args.pid == `+s.find(`Process (\d+)`, s.text)+` && args.sig == 10/ { @[comm] = count(); }`))
	},
	"dropped-packet": func(s solver) string {
		out := s.trace(`tracepoint:skb:kfree_skb { @[ksym(args.location), ((struct sk_buff *)args.skbaddr)->dev->name] = count(); }`)
		return s.find(`, (\w+)`, s.most("", s.mine(out, `, (\w+)\]`)))
	},
	"loopback-source": func(s solver) string {
		out := s.trace(`tracepoint:skb:kfree_skb { $s = (struct sk_buff *)args.skbaddr; $ip = (struct iphdr *)($s->head + $s->network_header);
			$udp = (struct udphdr *)((uint8 *)$ip + 20); @[ntop($ip->saddr), bswap($udp->dest)] = count(); }`)
		return s.find(`@\[127\.[0-9.]+, (\d+)\]`, s.mine(out, `, (\d+)\]`))
	},
	"lost-address": func(s solver) string {
		return s.find(`@\[(\w+), 21\]`, s.trace(`tracepoint:syscalls:sys_enter_sendto { @[comm, *(uint16 *)(args.buff + 4)] = count(); }`))
	},
	"vanished-pin": func(s solver) string {
		pin := s.find(`bpf/(\w+)`, s.text)
		out := s.trace(`tracepoint:syscalls:sys_enter_bpf /args.cmd == 6/ { $path = *(uint64 *)uptr(args.uattr); @[pid, str(uptr($path))] = count(); }`)
		to, err := os.Readlink("/proc/" + s.find(`@\[(\d+), /sys/fs/bpf/`+pin+`\]`, out) + "/ns/mnt")
		if err != nil {
			s.t.Fatal(err)
		}
		return to
	},
	"silent-xsk": func(s solver) string {
		return s.most("", s.trace(`tracepoint:net:net_dev_start_xmit /str(args.name) == "eth0" && args.protocol == 0x800/ { @[args.queue_mapping] = count(); }`))
	},
	"oops": func(s solver) string {
		return s.find(`(bugs_\w+)`, s.fathom("explain", s.find(`(\S+) is the console`, s.text)))
	},
	"slow-interrupt": func(s solver) string {
		g := s.find(`guest (\S+),`, s.text)
		out := s.fathom("lab", "exec", g, "--", "fathom", "trace", "-e",
			`kprobe:late_irq_* { @s[cpu] = nsecs; } kretprobe:late_irq_* { @us[func] = min((nsecs - @s[cpu]) / 1000); }`, "--for", "8s")
		return s.most("us", out)
	},
	"stuck-work": func(s solver) string {
		s.fathom("lab", "dump", s.find(`guest (\S+),`, s.text), filepath.Join(s.b.Dir, "core"))
		return s.find(`(late_sleep_\w+)`, s.fathom("core", filepath.Join(s.b.Dir, "core"), "foreach", "bt"))
	},
	"deadlock": func(s solver) string {
		out := s.fathom("core", s.find(`(\S+) is the memory`, s.text), "waitq")
		return s.find(`sh waits for mutex .*?held by pid (\d+)`, strings.ReplaceAll(out, "\n", " "))
	},
}

// fathomBinary builds the command.
func fathomBinary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "fathom")
	cmd := exec.Command("go", "build", "-o", bin, "github.com/fathom-trace/fathom/cmd/fathom")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// tried are the namespaces of exercises that are there.
func tried() []string {
	names, _ := filepath.Glob(netns.RunDir + "/fathom.*try-*")
	return names
}

// TestSolve builds each exercise, finds the answer with fathom alone, and sees that nothing is left.
func TestSolve(t *testing.T) {
	ktest.Need(t, ktest.NetNS, ktest.Tracepoint)
	bin := fathomBinary(t)
	before := tried()
	for i, e := range exercise.All() {
		t.Run(e.Name, func(t *testing.T) {
			if e.Guest && os.Getenv(ktest.EnvGuests) == "" {
				t.Skip(ktest.EnvGuests + " is not set")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			b, err := exercise.NewBench(bin, lease.Default(lease.User(), os.Getenv), uint64(os.Getpid()+i))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(b.Dir); err == nil {
					t.Error(b.Dir, "is left")
				}
			}()
			p, err := e.Build(ctx, b)
			if err != nil {
				t.Fatal(err)
			}
			solve := solvers[e.Name]
			if solve == nil {
				t.Fatal("nobody knows how to solve it")
			}
			got := solve(solver{t, b, p.Text})
			if !p.Check(got) {
				t.Errorf("%s\nanswer %q, want %q", p.Text, got, p.Answer)
			}
			if p.Check("nonsense") || p.Check("") {
				t.Error("anything is taken for an answer")
			}
			if len(p.Hints) == 0 || p.Why == "" {
				t.Error("no hint, or no explanation")
			}
		})
	}
	left := slices.DeleteFunc(tried(), func(ns string) bool { return slices.Contains(before, ns) })
	for deadline := time.Now().Add(2 * time.Minute); len(left) > 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		now := tried() // others try exercises, too, and end
		left = slices.DeleteFunc(left, func(ns string) bool { return !slices.Contains(now, ns) })
	}
	if len(left) > 0 {
		t.Errorf("namespaces are left: %v", left)
	}
}

// TestWords: what is drawn is drawn once, and the same for the same seed.
func TestWords(t *testing.T) {
	draw := func() (out []string) {
		b, err := exercise.NewBench("/bin/false", lease.Dir{Path: filepath.Join(t.TempDir(), "run")}, 7)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		return append(b.Words(60), b.Net())
	}
	a, c := draw(), draw()
	if !slices.Equal(a, c) {
		t.Errorf("%v\n%v", a, c)
	}
	slices.Sort(a)
	if len(slices.Compact(a)) != 61 {
		t.Error("something was drawn twice")
	}
}
