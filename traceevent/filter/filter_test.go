package filter

import (
	"errors"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/traceevent"
)

const rx = `name: netif_receive_skb
ID: 1
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:void * skbaddr;	offset:8;	size:8;	signed:0;
	field:unsigned int len;	offset:16;	size:4;	signed:0;
	field:__data_loc char[] name;	offset:20;	size:4;	signed:0;
	field:unsigned long args[6];	offset:24;	size:48;	signed:0;

print fmt: "dev=%s", __get_str(name)
`

func event(t testing.TB) *traceevent.Format {
	f, err := traceevent.Parse([]byte(rx))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestParse: what is read is written as the kernel reads it.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		`len>100`:                          `len > 100`,
		`len & 0x10`:                       `len & 0x10`,
		`comm==wget`:                       `comm == "wget"`,
		`filename == /usr/bin/wget`:        `filename == "/usr/bin/wget"`,
		`name ~ 'eth*' && len >= 64`:       `name ~ "eth*" && len >= 64`,
		`a==1 || b==2 && c==3`:             `a == 1 || b == 2 && c == 3`,
		`(a==1 || b==2) && !(c == -3)`:     `(a == 1 || b == 2) && !(c == -3)`,
		`skbaddr == 0xffff888000000000`:    `skbaddr == 0xffff888000000000`,
		`!a == 1`:                          `!(a == 1)`,
		` ( ( len == 1 ) ) `:               `len == 1`,
		`a & 1&&b & 2`:                     `a & 1 && b & 2`,
		`a==1 && (b==2 || c==3) || d != 4`: `a == 1 && (b == 2 || c == 3) || d != 4`,
	} {
		x, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if x.String() != want {
			t.Errorf("%s is read as %s, want %s", text, x, want)
		}
		if y, err := Parse(x.String()); err != nil || y.String() != want {
			t.Errorf("%s is then read as %v (%v)", x, y, err)
		}
	}
}

// TestWrong: mistakes are told at their place.
func TestWrong(t *testing.T) {
	for _, c := range []struct {
		text string
		off  int
		msg  string
	}{
		{"", 0, "a field's name is missing"},
		{"len >", 5, "a value is missing"},
		{"len 5", 4, "a comparison is missing"},
		{"(len > 5", 8, "a ) is missing"},
		{"len > 5)", 7, "is too much"},
		{`name == "eth0`, 8, "the quote does not end"},
		{"len > 5 && length < 3", 11, "has no field length; it has skbaddr len name"},
		{"len == eth0", 0, "len is a number"},
		{"len ~ 5", 0, "~ is for texts"},
		{`name > "a"`, 0, "name is a text"},
		{"args == 1", 0, "cannot be compared"},
		{strings.Repeat("!", 100) + "len == 1", 64, "nested too deeply"},
	} {
		x, err := Parse(c.text)
		if err == nil {
			err = Check(c.text, x, event(t))
		}
		var e *Error
		if !errors.As(err, &e) || e.Off != c.off || !strings.Contains(e.Msg, c.msg) {
			t.Errorf("%s: %v, want %d: %s", c.text, err, c.off, c.msg)
		}
	}
	if x, err := Parse("name == 5 && comm != x && cpu < 2 && common_pid == 7"); err != nil || Check("", x, event(t)) != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`len>100 && comm=="nc"`, "!(a & 0x10) || b ~ 'x*'", "((((", `"`} {
		f.Add(s)
	}
	ev := event(f)
	f.Fuzz(func(t *testing.T, s string) {
		x, err := Parse(s)
		if err != nil {
			return
		}
		_ = Check(s, x, ev)
		if strings.ContainsAny(s, `"'`) { // a text with quotes of the other kind does not survive
			return
		}
		if _, err := Parse(x.String()); err != nil {
			t.Errorf("%q is read as %q, which is not read: %v", s, x, err)
		}
	})
}
