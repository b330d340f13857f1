// Package ktest runs Go tests inside kernels.
//
// A test asks for what it needs of a kernel, [Need](t, [Kprobe], [BTF]), and runs wherever that is: on the machine at hand
// if the tests run as root, and in every guest that FATHOM_GUESTS names ("all", or "debian-6.1,debian-6.12", or the whole path
// of a kernel's package, build tree or image). For a guest the package's own test binary is its init (it must be static:
// CGO_ENABLED=0); the guest boots once per package, runs the tests that need a kernel, and their results come back as subtests:
//
//	var guests = ktest.Config{Modules: []string{"veth"}}
//
//	func TestMain(m *testing.M)   { ktest.Main(m, guests) }
//	func TestGuest(t *testing.T)  { ktest.Guests(t, guests) } // → TestGuest/debian-6.1/TestAttach
//	func TestAttach(t *testing.T) { ktest.Need(t, ktest.Kprobe, ktest.BTF); … }
//
// Which features each kernel must have is the table in kernels.go: there, a missing feature fails the test.
package ktest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/initramfs"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// The environment ktest reads.
const (
	EnvGuests  = "FATHOM_GUESTS"  // kernels to boot: "all", or names or whole paths with commas; empty: none
	EnvAccel   = "FATHOM_ACCEL"   // how: tcg, kvm; empty: the best that works
	EnvOracles = "FATHOM_ORACLES" // "require": what is missing on this machine fails and does not skip
	EnvSoak    = "FATHOM_SOAK"    // not empty: tests do all they can, however long it takes
	envGuest   = "FATHOM_GUEST"   // set in a guest: its kernel's name
)

// Config says what a package's guests need. The zero Config is one that needs nothing special.
type Config struct {
	Modules  []string      // to load, with dependencies; "x?" only where the kernel has it; "x p=1" with parameters
	Files    []guest.File  // to put into the guest; the package's testdata folder always is, as ./testdata
	Env      []string      // for the tests
	Run      string        // pattern of tests to run in guests; if empty, those that call ktest.Need are found in the source
	Kernels  []string      // only these; if empty, all but those that are like another ([Kernel.Like])
	Append   []string      // kernel command line
	QEMUArgs []string      // devices
	Mem      int           // MiB; 1024 if 0
	CPUs     int           // 2 if 0
	Timeout  time.Duration // of one guest; 10 minutes if 0
	Pack     initramfs.Compression
	Each     func(t *testing.T, kernel string, c *Config) // adds what only this kernel's guest has, before it boots

	// NoLeakCheck turns the leak check of [Main] off; its text is the reason.
	NoLeakCheck string
}

// Main runs a package's tests, then the leak check, and exits. As PID 1 of a guest it is the init instead.
func Main(m *testing.M, c Config) { os.Exit(Run(m, c)) }

// Run is [Main] for a TestMain that has more to do; it returns the exit code.
func Run(m *testing.M, c Config) int {
	if pid1.IsInit() {
		fmt.Fprintln(os.Stderr, pid1.Main())
		return 1
	}
	if c.NoLeakCheck != "" {
		return m.Run()
	}
	return LeakCheck(m.Run)
}

// Where is the kernel the tests run on: a name of [Kernels] or a path, [Host] outside guests.
func Where() string {
	if g := os.Getenv(envGuest); g != "" {
		return g
	}
	return Host
}

// Soak reports that tests shall do all they can, however long it takes (make soak).
func Soak() bool { return os.Getenv(EnvSoak) != "" }

// InGuest reports that this process runs in a guest: it may break things.
func InGuest() bool { return Where() != Host }

// Need skips or fails a test unless the kernel it runs on has these features. It fails if the table says that the kernel
// has one and trying it fails; it skips if the table does not list it, and on a host without root.
func Need(t testing.TB, fs ...Feature) {
	t.Helper()
	k := lookup(Where())
	if k.Any && os.Getuid() != 0 {
		Missing(t, "needs root on this machine, or "+EnvGuests+"=all")
	}
	need(t, k, Detect, fs)
}

func need(t testing.TB, k Kernel, detect func(Feature) error, fs []Feature) {
	t.Helper()
	for _, f := range fs {
		must := slices.Contains(k.Must, f)
		if !must && !k.Any {
			t.Skipf("%s does not have %s", k.Name, f)
		}
		switch err := detect(f); {
		case err != nil && must:
			t.Fatalf("%s must have %s: %v", k.Name, f, err)
		case err != nil:
			t.Skip(err)
		}
	}
}

// Unsupported skips a test whose attempt failed with err because the kernel does not have something that [Features] does not list. It
// fails on the guests' kernels that lacking does not name: they have it.
func Unsupported(t testing.TB, err error, lacking ...string) {
	t.Helper()
	if where := Where(); !lookup(where).Any && !slices.Contains(lacking, where) {
		t.Fatalf("%s must have it: %v", where, err)
	}
	t.Skip(err)
}

// NeedGuest skips a test outside guests, for what must not be done to the machine at hand.
func NeedGuest(t testing.TB, fs ...Feature) {
	t.Helper()
	if !InGuest() {
		t.Skip("runs in guests only")
	}
	Need(t, fs...)
}

// Missing skips a test because this machine lacks something, or fails it under FATHOM_ORACLES=require.
func Missing(t testing.TB, why string) { t.Helper(); oracle.Missing(t, why) }

// Oracle returns the path of a program to compare with, or calls [Missing].
func Oracle(t testing.TB, program string) string { t.Helper(); return oracle.Path(t, program) }

// skipped is what Guests says when no guest is wanted.
const skipped = EnvGuests + " is not set (all, or names of kernels)"

func lookup(name string) Kernel {
	i := slices.IndexFunc(Kernels, func(k Kernel) bool { return k.Name == name })
	if i < 0 {
		return Kernel{Name: name, Any: isFile(name)}
	}
	return Kernels[i]
}

// isFile says if a kernel is given by its whole path, as lab boot --kernel takes it: of what it has, nothing is known.
func isFile(name string) bool { return filepath.IsAbs(name) }

// everyKernel is what FATHOM_GUESTS says for all of them.
const everyKernel = "all"

// EveryGuest gives the names of all kernels that guests run, for [Config.Kernels].
func EveryGuest() (names []string) {
	for _, k := range Kernels {
		if k.Name != Host {
			names = append(names, k.Name)
		}
	}
	return names
}

// wanted reads FATHOM_GUESTS.
func wanted(env string) ([]string, error) {
	all := EveryGuest()
	if env == everyKernel {
		return all, nil
	}
	var names []string
	for n := range strings.SplitSeq(env, ",") {
		n = strings.TrimSpace(n)
		if n == "" || n == Host {
			continue
		}
		if !slices.Contains(all, n) && !isFile(n) {
			return nil, fmt.Errorf("%s: no kernel %q; there are %s, and files and folders by their whole path", EnvGuests, n, strings.Join(all, ", "))
		}
		names = append(names, n)
	}
	return names, nil
}
