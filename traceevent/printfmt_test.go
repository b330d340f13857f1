package traceevent

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/hostile"
)

// printed is an event with fields of many kinds; rec is a record of it.
const printed = `name: printed
ID: 7
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:int neg;	offset:8;	size:4;	signed:1;
	field:u8 small;	offset:12;	size:1;	signed:0;
	field:char comm[8];	offset:16;	size:8;	signed:0;
	field:unsigned long addr;	offset:24;	size:8;	signed:0;
	field:__u8 ip[4];	offset:32;	size:4;	signed:0;
	field:__data_loc char[] name;	offset:36;	size:4;	signed:0;
	field:__data_loc u32[] nums;	offset:40;	size:4;	signed:0;
	field:__u8 ip6[16];	offset:44;	size:16;	signed:0;
	field:unsigned long args[2];	offset:64;	size:16;	signed:0;

print fmt: `

func printedRecord() []byte {
	b := make([]byte, 80)
	le := binary.LittleEndian
	le.PutUint16(b, 7)
	neg := int32(-5)
	le.PutUint32(b[8:], uint32(neg))
	b[12] = 200
	copy(b[16:], "swapper\x00")
	le.PutUint64(b[24:], 0xffffffff81000010)
	copy(b[32:], []byte{192, 0, 2, 1})
	le.PutUint32(b[36:], 5<<16|80)
	le.PutUint32(b[40:], 8<<16|88)
	copy(b[44:], []byte{0x20, 1, 0xd, 0xb8, 15: 1})
	le.PutUint64(b[64:], 1)
	le.PutUint64(b[72:], 2)
	b = append(b, "eth0\x00\x00\x00\x00"...)
	return append(b, 1, 0, 0, 0, 255, 0, 0, 0)
}

func symbolAt(a uint64) (string, uint64, uint64, string, bool) {
	return "vfs_read", a & 0xff, 0x120, "mod", a>>16 == 0xffffffff8100
}

// TestPrint renders print fmts; what is right is what lib/vsprintf.c and kernel/trace/trace_output.c of the kernel do.
func TestPrint(t *testing.T) {
	tests := []struct{ fmt, want string }{
		{`"neg=%d small=%u", REC->neg, REC->small`, "neg=-5 small=200"},
		{`"%x %#x %08lx %lX", REC->neg, REC->small, REC->args[1], REC->addr`, "fffffffb 0xc8 00000002 FFFFFFFF81000010"},
		{`"[%5d][%-5d][%+d][%.3u][%05d]", REC->neg, REC->neg, 7, 7, REC->neg`, "[   -5][-5   ][+7][007][-0005]"},
		{`"%s|%10s|%-10s|%.2s|%*s", REC->comm, __get_str(name), __get_str(name), __get_str(name), 6, __get_str(name)`, "swapper|      eth0|eth0      |et|  eth0"},
		{`"%pS %ps %pS", (void *)REC->addr, (void *)REC->addr, (void *)16`, "vfs_read+0x10/0x120 [mod] vfs_read [mod] 0x10"},
		{`"%p", REC->addr`, "ffffffff81000010"},
		{`"%pI4 %pI6c", REC->ip, REC->ip6`, "192.0.2.1 2001:db8::1"},
		{`"%s", __print_symbolic(REC->small, { 1, "ONE" }, { (199 + 1), "C8" })`, "C8"},
		{`"%s", __print_symbolic(REC->small, { 1, "ONE" }, { -1, ((void *)0) })`, "0xc8"},
		{`"%s", __print_flags(REC->small, "|", { 8, "A" }, { 0x40, "B" }, { UNKNOWN_NAME, "C" })`, "A|B|0x80"},
		{`"%s", REC->neg & 4 ? "yes" : "no"`, "no"},
		{`"%d:%d", ((unsigned int) ((REC->addr) >> 20)), (int)(REC->addr & ((1U << 20) - 1))`, "-2032:16"},
		{`"%s %s", __print_array(__get_dynamic_array(nums), __get_dynamic_array_len(nums) / 4, 4), __print_hex(__get_dynamic_array(nums), 2)`, "{0x1,0xff} 01 00"},
		{`"%d%%", 5`, "5%"},
		{`"a" "b %c", 'x'`, "ab x"},
		{`"%lld", (long long)REC->neg`, "-5"},
		{`"%llu", (u64)REC->neg`, "18446744073709551611"},
		{`"%u", (u8)REC->neg`, "251"},
		{`"%d", REC->neg / 0`, "0"},
		{`"%d", sizeof(u32) + sizeof(REC->comm)`, "12"},
		{`"%d", !REC->neg || REC->small == 200 && REC->small != 3`, "1"},
		{`"%s", (char *)REC->addr`, "0xffffffff81000010"},
		{`"%hhd %hd", REC->small, 65535`, "-56 -1"},
		{`"%*pbl", 64, __get_dynamic_array(nums)`, "0,32-39"},
		{`"%s", __get_cpumask(nums)`, "000000ff,00000001"},
		{`"%s", some_helper(REC->neg)`, "neg=-5 small=200 comm=swapper addr=18446744071578845200 ip={0xc0,0x0,0x2,0x1} name=eth0 nums={0x1,0xff} ip6={0x20,0x1,0xd,0xb8,0x0,0x0,0x0,0x0,0x0,0x0,0x0,0x0,0x0,0x0,0x0,0x1} args={0x1,0x2}"},
	}
	env := &Env{Symbol: symbolAt}
	for _, tt := range tests {
		f, err := Parse([]byte(printed + tt.fmt))
		if err != nil {
			t.Fatal(err)
		}
		p := NewPrinter(f)
		if got := string(p.Append(nil, printedRecord(), env)); got != tt.want {
			t.Errorf("%s\n got %q\nwant %q (%v)", tt.fmt, got, tt.want, p.Incomplete())
		}
	}
}

// TestPrintShort: a record that ends anywhere is rendered without a panic.
func TestPrintShort(t *testing.T) {
	f, err := Parse([]byte(printed + `"%d %s %s %lu %pI4 %s %c", REC->neg, REC->comm, __get_str(name), REC->args[1], REC->ip, __print_hex(__get_dynamic_array(nums), 99), ((u32 *)__get_dynamic_array(nums))[1]`))
	if err != nil {
		t.Fatal(err)
	}
	p, rec := NewPrinter(f), printedRecord()
	for n := range rec {
		p.Append(nil, rec[:n:n], nil)
	}
}

// TestMutated: whatever is damaged or cut, formats, print fmts, records and pages are read to an end.
func TestMutated(t *testing.T) {
	text := printed + `"%d %s %*.*s %pIS %d", REC->neg, __print_flags(REC->small, "|", { 1, "A" }), 3, 4, __get_str(name), REC->ip6, ((u8)(REC->neg ? : 4) << 3)` + "\n"
	good, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{Symbol: symbolAt, HZ: 250}
	show := func(f *Format, rec []byte) {
		if out := NewPrinter(f).Append(nil, rec, env); len(out) > 1<<20 {
			t.Errorf("%d bytes out of %q", len(out), f.Print)
		}
	}
	hostile.Check(t, []byte(text), 0, func(b []byte) {
		if f, err := Parse(b); err == nil {
			show(f, printedRecord())
		}
	})
	hostile.Check(t, printedRecord(), 0, func(b []byte) { show(good, b) })
	hostile.Check(t, page(1000, 28, head(1, 5), abcd, head(0, 7), 8, abcd, head(typeStamp, 1), abcd), 0, func(b []byte) {
		p, err := ParsePage(b, PageHeader64)
		if err == nil {
			_ = p.Records(func(uint64, []byte) bool { return true })
		}
	})
}

func FuzzPrint(f *testing.F) {
	for _, s := range []string{`"%d", REC->neg`, `"%s", __print_flags(REC->small, "|", { 1, "A" })`, `"%*.*s", 3, 4, __get_str(name)`, `"%pIS", REC->ip6`, `"%d", ((u8)(REC->neg ? : 4) << 3)`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ev, err := Parse([]byte(printed + strings.ReplaceAll(text, "\n", " ")))
		if err != nil {
			return
		}
		if out := NewPrinter(ev).Append(nil, printedRecord(), &Env{Symbol: symbolAt, HZ: 250}); len(out) > 1<<20 {
			t.Errorf("%d bytes out of %q", len(out), text)
		}
	})
}

func BenchmarkPrint(b *testing.B) {
	f, err := Parse([]byte(printed + `"prev_comm=%s prev_pid=%d prev_prio=%d prev_state=%s ==> next_comm=%s next_pid=%d next_prio=%d", REC->comm, REC->neg, REC->small, __print_symbolic(REC->small, { 1, "S" }, { 200, "D" }), REC->comm, REC->neg, REC->small`))
	if err != nil {
		b.Fatal(err)
	}
	p, rec := NewPrinter(f), printedRecord()
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = p.Append(out[:0], rec, nil)
	}
}
