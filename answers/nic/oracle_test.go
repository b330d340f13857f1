package nic_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// ethtool is the oracle for guests, with the libraries that it needs.
func ethtool(t *testing.T) (files []guest.File) {
	t.Helper()
	path := ktest.Oracle(t, "ethtool")
	files = append(files, guest.File{Name: "/usr/sbin/ethtool", Path: path})
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	for w := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(w, "/") {
			files = append(files, guest.File{Name: w, Path: w})
		}
	}
	return files
}

// asked runs ethtool and gives its lines.
func asked(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command(ktest.Oracle(t, "ethtool"), args...).Output()
	if err != nil {
		t.Fatalf("ethtool %v: %v", args, err)
	}
	return strings.Split(string(out), "\n")
}

// TestFeatures compares features with ethtool -k, which has names of its own for some.
func TestFeatures(t *testing.T) {
	r, err := netlive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	devs, err := r.NICs("")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{
		"rx-checksumming": "rx-checksum", "generic-segmentation-offload": "tx-generic-segmentation", "generic-receive-offload": "rx-gro",
		"large-receive-offload": "rx-lro", "rx-vlan-offload": "rx-vlan-hw-parse", "tx-vlan-offload": "tx-vlan-hw-insert", "ntuple-filters": "rx-ntuple-filter",
		"receive-hashing": "rx-hashing",
	}
	for _, d := range devs {
		want := map[string]string{}
		for _, l := range asked(t, "-k", d.Name) {
			name, state, ok := strings.Cut(strings.TrimSpace(l), ": ")
			if n := names[name]; n != "" {
				name = n
			}
			if ok {
				want[name] = strings.TrimSuffix(state, " [requested on]")
			}
		}
		same := 0
		for _, f := range d.Features {
			state := map[bool]string{true: "on", false: "off"}[f.On]
			if f.Fixed {
				state += " [fixed]"
			}
			if w, ok := want[f.Name]; ok {
				if same++; strings.TrimSuffix(w, " [requested off]") != state {
					t.Errorf("%s %s: %s, ethtool says %s", d.Name, f.Name, state, w)
				}
			}
		}
		if same < len(d.Features)*9/10 || same == 0 {
			t.Errorf("%s: %d of %d features are ethtool's, too", d.Name, same, len(d.Features))
		}
	}
}

// TestRegisters compares the registers of an e1000e with ethtool -d.
func TestRegisters(t *testing.T) {
	ktest.NeedGuest(t)
	m := cards(t)["e1000e"]
	if m == nil {
		t.Fatal("there is no e1000e")
	}
	up(t, m.Name)
	r, err := netlive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var wrong []string
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) { // the link comes up meanwhile
		if wrong = differing(t, r, m.Name); len(wrong) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

// differing says how registers differ from what ethtool -d says.
func differing(t *testing.T, r *netlive.Reader, dev string) (out []string) {
	driver, dump, err := r.Registers(dev)
	if err != nil || driver != "e1000e" || !netnic.KnowsRegisters(driver) {
		t.Fatal(driver, err)
	}
	have := map[string]netnic.Register{}
	for _, reg := range netnic.DecodeRegisters(driver, dump) {
		have[strings.TrimSuffix(reg.Name, "(0)")] = reg
	}
	line := regexp.MustCompile(`^0x[0-9A-F]+: ([A-Z]+) +\(.*\) +0x([0-9A-F]+)`)
	same := 0
	for _, l := range asked(t, "-d", dev) {
		w := line.FindStringSubmatch(l)
		if w == nil {
			continue
		}
		v, err := strconv.ParseUint(w[2], 16, 32)
		if reg, ok := have[w[1]]; err != nil || !ok || uint64(reg.Value) != v {
			out = append(out, fmt.Sprintf("%s is 0x%x, ethtool says %s", w[1], reg.Value, l))
		}
		same++
	}
	if same != 12 {
		out = append(out, fmt.Sprintf("%d registers of ethtool's, not 12", same))
	}
	return out
}
