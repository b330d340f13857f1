package oops

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/hostile"
)

// TestNetconsole sends a text as netconsole does: raw in pieces, extended with long lines in parts, with one packet lost.
func TestNetconsole(t *testing.T) {
	var raw Netconsole
	got := ""
	for b := nullDeref; b != ""; {
		n := min(len(b), 100)
		got += raw.Add([]byte(b[:n]))
		b = b[n:]
	}
	if d := cmp.Diff(nullDeref, got); d != "" {
		t.Error(d)
	}
	var ext Netconsole
	got = ""
	for i, l := range strings.Split(strings.TrimSuffix(nullDeref, "\n"), "\n") {
		head := fmt.Sprintf("4,%d,%d,-", 400+i, 7000*i)
		if i%2 == 0 {
			head = "6.12.0-cloud," + head
		}
		if len(l) > 60 {
			got += ext.Add([]byte(fmt.Sprintf("%s,ncfrag=0/%d;%s", head, len(l), l[:40])))
			got += ext.Add([]byte(fmt.Sprintf("%s,ncfrag=40/%d;%s", head, len(l), l[40:])))
			continue
		}
		got += ext.Add([]byte(head + ";" + l + "\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:01.0\n"))
	}
	if d := cmp.Diff(nullDeref, got); d != "" || ext.Lost != 0 {
		t.Error(ext.Lost, d)
	}
	if d := cmp.Diff(nullWant, of(Parse([]byte(got))[0])); d != "" {
		t.Error(d)
	}
	ext.Add([]byte("6,500,1,-;later\n"))
	if want := 500 - 400 - strings.Count(nullDeref, "\n"); ext.Lost != want {
		t.Errorf("lost %d, not %d", ext.Lost, want)
	}
	if s := ext.Add([]byte("6,501,1,-,ncfrag=7/20;orphan")); s != "" {
		t.Errorf("part without a beginning: %q", s)
	}
}

func TestJoinPstore(t *testing.T) {
	third := len(nullDeref) / 3
	got, err := JoinPstore([]PstoreFile{
		{"console-ramoops-0", []byte("booting\n")},
		{"dmesg-efi_pstore-1", []byte("Panic#2 Part1\nthe end\n")},
		{"dmesg-efi_pstore-2", []byte("Oops#1 Part1\n" + nullDeref[2*third:])},
		{"dmesg-efi_pstore-3", []byte("Oops#1 Part2\n" + nullDeref[third:2*third])},
		{"dmesg-efi_pstore-4", []byte("Oops#1 Part3\n" + nullDeref[:third])},
		{"dmesg-efi_pstore-5.enc.z", []byte{1, 2, 3}},
	})
	want := []Pstore{
		{"Oops", 1, []string{"dmesg-efi_pstore-4", "dmesg-efi_pstore-3", "dmesg-efi_pstore-2"}, nullDeref},
		{"Panic", 2, []string{"dmesg-efi_pstore-1"}, "the end\n"},
		{"", 0, []string{"console-ramoops-0"}, "booting\n"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if err == nil || !strings.Contains(err.Error(), "dmesg-efi_pstore-5.enc.z") {
		t.Error(err)
	}
}

// TestHostile gives texts, packets and records cut short and changed.
func TestHostile(t *testing.T) {
	hostile.Check(t, []byte(nullDeref), 0, func(b []byte) {
		for _, r := range Parse(b) {
			r.Guilty()
			r.Where()
		}
	})
	hostile.Check(t, []byte("6.12.0,4,400,7000,-,ncfrag=0/9;text of a message\n SUBSYSTEM=pci\n"), 0, func(b []byte) {
		var n Netconsole
		n.Add(b)
		n.Add([]byte("4,401,7000,-,ncfrag=9/18;the rest"))
	})
	hostile.Check(t, []byte("Oops#1 Part2\n"+nullDeref), 16, func(b []byte) {
		_, _ = JoinPstore([]PstoreFile{{"dmesg-efi-1", b}, {"dmesg-efi-2", []byte("Oops#1 Part1\nend\n")}})
	})
}

func FuzzNetconsole(f *testing.F) {
	f.Add([]byte("4,1,2,-,ncfrag=0/9;abc"), []byte("4,1,2,-,ncfrag=3/9;abcdef"))
	f.Add([]byte("plain text\n"), []byte("6.1,6,2,3,c;x\n A=b\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var n Netconsole
		if out := n.Add(a) + n.Add(b); len(out) > len(a)+len(b)+2 {
			t.Errorf("%q %q: %q", a, b, out)
		}
	})
}

func FuzzJoinPstore(f *testing.F) {
	f.Add([]byte("Panic#1 Part2\nx"), []byte("Panic#1 Part1\ny"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		out, _ := JoinPstore([]PstoreFile{{"dmesg-ramoops-0", a}, {"dmesg-ramoops-1", b}})
		n := 0
		for _, p := range out {
			n += len(p.Text)
		}
		if n > len(a)+len(b) {
			t.Errorf("%+v", out)
		}
	})
}
