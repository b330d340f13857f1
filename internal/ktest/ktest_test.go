package ktest_test

import (
	"os"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
)

var guests = ktest.Config{Modules: []string{"veth", "9p?"}, Kernels: ktest.EveryGuest()}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// TestFeatures holds each kernel to its row of the table, and shows what it has beyond it.
func TestFeatures(t *testing.T) {
	ktest.Need(t)
	for _, k := range ktest.Kernels {
		if k.Name != ktest.Where() {
			continue
		}
		for _, f := range k.Must {
			t.Run(string(f), func(t *testing.T) { ktest.Need(t, f) })
		}
	}
	for _, f := range ktest.Features() {
		if err := ktest.Detect(f); err != nil {
			t.Log(err)
		} else {
			t.Logf("%s: yes", f)
		}
	}
}

// TestTestdata sees that the package's files are there, wherever it runs.
func TestTestdata(t *testing.T) {
	ktest.NeedGuest(t)
	b, err := os.ReadFile("testdata/hello.txt")
	if err != nil || string(b) != "hello\n" {
		t.Errorf("%q, %v", b, err)
	}
	if host, _ := os.Hostname(); host == "" {
		t.Error("no host name")
	}
}
