package check_test

import (
	"testing"

	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

func run(text string, opts check.Options) (*check.Info, []syntax.Diag) {
	f, ds := syntax.Parse(&syntax.Source{Name: "stdin", Text: text})
	if len(ds) > 0 {
		return nil, ds
	}
	if opts.World == nil {
		opts.World = newWorld()
	}
	return check.Check(f, opts)
}

func TestSmoke(t *testing.T) {
	for _, p := range []string{
		`begin { printf("hello %d %s\n", 1, comm); exit(); }`,
		`kprobe:vfs_read { @[comm] = count(); }`,
		`kprobe:vfs_read /pid == 1 && comm == "x"/ { @a[tid] = nsecs; @h = hist(arg2); }`,
		`kretprobe:vfs_read /@a[tid]/ { @us = lhist(nsecs - @a[tid], 0, 100, 1); delete(@a[tid]); }  begin { @a[1] = 5; }`,
		`kprobe:vfs_read { $s = (struct sk_buff *)arg0; print($s->dev->name); print($s.len); print($s.pkt_type); }`,
		`tracepoint:syscalls:sys_enter_open* { printf("%s\n", str(args.filename)); }`,
		`tracepoint:net:netif_receive_skb /str(args->name) == "lo"/ { print(((struct sk_buff*)(args->skbaddr))->pkt_type); }`,
		`begin { $a = 1; $a = $a + 1; @x = $a; for ($kv : @m) { print($kv.0); } @m[1, "a"] = 2; }`,
	} {
		_, ds := run(p, check.Options{})
		for _, d := range ds {
			t.Errorf("%s\n%v %s", p, d, d.Hint)
		}
	}
}
