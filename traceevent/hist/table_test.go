package hist

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the kernel writes, in its layout (hist_trigger_show): stacks, texts that hold commas and braces, two tables.
const file = `# event histogram
#
# trigger info: hist:keys=common_stacktrace,comm:vals=hitcount,len:sort=hitcount:size=2048 if len > 5 [active]
#

{ common_stacktrace:
         __netif_receive_skb_one_core+0x3c/0xa0
         xsk_sendmsg+0x12f/0x1f0 [xsk]
, comm: nc, {a}: b           } hitcount:         40  len:       3160

Totals:
    Hits: 40
    Entries: 1
    Dropped: 2


# event histogram
#
# trigger info: hist:keys=id.syscall,lat.log2:vals=hitcount:sort=hitcount:size=2048 [paused]
#

{ id: sys_read                      [  0], lat: ~ 2^5                 } hitcount:          7
{ id: sys_write                     [  1], lat: ~ 2^10                } hitcount:          9

Totals:
    Hits: 16
    Entries: 2
    Dropped: 0
`

func TestParse(t *testing.T) {
	got, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []Table{
		{
			Trigger: "hist:keys=common_stacktrace,comm:vals=hitcount,len:sort=hitcount:size=2048 if len > 5", State: "active", Hits: 40, Dropped: 2,
			Entries: []Entry{{
				Keys: []Item{{Name: "common_stacktrace", Stack: []string{"__netif_receive_skb_one_core+0x3c/0xa0", "xsk_sendmsg+0x12f/0x1f0 [xsk]"}},
					{Name: "comm", Text: "nc, {a}: b"}},
				Values: []Item{{Name: "hitcount", Text: "40"}, {Name: "len", Text: "3160"}},
			}},
		},
		{
			Trigger: "hist:keys=id.syscall,lat.log2:vals=hitcount:sort=hitcount:size=2048", State: "paused", Hits: 16,
			Entries: []Entry{
				{Keys: []Item{{Name: "id", Text: "sys_read                      [  0]"}, {Name: "lat", Text: "~ 2^5"}}, Values: []Item{{Name: "hitcount", Text: "7"}}},
				{Keys: []Item{{Name: "id", Text: "sys_write                     [  1]"}, {Name: "lat", Text: "~ 2^10"}}, Values: []Item{{Name: "hitcount", Text: "9"}}},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseCut(t *testing.T) {
	for n := range file {
		got, err := Parse(file[:n])
		if err == nil && len(got) == 2 && n < len(file)-60 {
			t.Errorf("the first %d bytes are taken for all", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(file)
	f.Add("# trigger info: hist:keys=a [active]\n{ a: 1 } hitcount: 5\nTotals:\n Hits: 5\n")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = Parse(s) })
}
