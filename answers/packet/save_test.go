package packet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tell does all that can be done with a recording, and gives its JSON.
func tell(r *Recording) (string, error) {
	vs := Explain(r)
	var out bytes.Buffer
	err := errors.Join(JSON(&out, r, vs, true), Text(io.Discard, r, vs, Style{Verbose: true, Latency: true}), HTML(io.Discard, r, vs), PcapNG(io.Discard, r, vs, 0))
	if f := r.Pick(""); f != nil {
		err = errors.Join(err, Diff(io.Discard, r, r, f, f))
	}
	return out.String(), err
}

// TestSave: a recording that was saved and loaded is explained as before.
func TestSave(t *testing.T) {
	w := newWorld(t)
	in := udp(a0, b0)
	w.see(in.bytes(), "queue skb=1 ns=1 dev=1 path=udp_sendmsg,do_syscall_64", "rx skb=1 ns=1 dev=2", "drop skb=1 ns=1 dev=2 by=ip_rcv reason=2 last")
	w.see(in.bytes(), "queue skb=2 ns=1 dev=1")
	w.see(udp("192.0.2.9:7", b0).bytes(), "queue skb=2 ns=1 dev=2")
	for i := range 9 {
		w.see(tcp(uint32(i), uint16(i)).bytes(), fmt.Sprintf("rx skb=%d ns=2 dev=1", 10+i))
	}
	made := &Recording{Kernel: "6.1", Level: "tracepoints", Flows: w.Flows(), Stages: w.Stages()}
	for name, r := range map[string]*Recording{"made": made, "good": load(t, "good"), "rule": load(t, "rule"), "mixed": load(t, "mixed")} {
		want, err := tell(r)
		if err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if err := r.Save(&file); err != nil {
			t.Fatal(err)
		}
		again, err := Load(&file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tell(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("%s: -before +after\n%s", name, diff)
		}
		for range 3 {
			if same, _ := tell(again); same != got {
				t.Errorf("%s: told twice, and not the same", name)
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "offset 0: EOF"},
		{"{", "unexpected EOF"},
		{"[]", "cannot unmarshal array"},
		{`{"format":"fathom packet 2"}`, `format is "fathom packet 2", not "fathom packet 1"`},
		{`{"format":"fathom packet 1","flows":[null]}`, "a flow is null"},
		{`{"format":"fathom packet 1","flows":[{"sample":[null]}]}`, "a packet is null"},
		{`{"format":"fathom packet 1","flows":[{"losses":[null]}]}`, "a loss without a packet"},
		{`{"format":"fathom packet 1","flows":[{"sample":[{"hops":[{"kind":"sneeze"}]}]}]}`, `no event "sneeze"`},
	} {
		if _, err := Load(strings.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.in, err, c.want)
		}
	}
}

// TestHostile puts what should not be there at every kind of place of a recording.
func TestHostile(t *testing.T) {
	b, err := os.ReadFile("testdata/rule.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"before", "at", "after"} { // one namespace each is enough, that of the loss if it is there
		states := doc[part].(map[string]any)
		at := slices.Collect(maps.Keys(doc["at"].(map[string]any)))[0]
		doc[part] = map[string]any{at: states[at]}
	}
	h := hostility{t: t, doc: doc, seen: map[string]bool{}}
	h.walk("", doc, func(any) {})
}

// hostility walks a document and spoils one place after another, of those that have the same path only the first.
type hostility struct {
	t    *testing.T
	doc  any
	seen map[string]bool
}

func (h *hostility) walk(path string, v any, put func(any)) {
	if !h.seen[path] {
		h.seen[path] = true
		for _, x := range hostile(v) {
			put(x)
			h.try(path, x)
		}
		put(v)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			at := path + "." + k
			switch {
			case strings.HasSuffix(path, "sysctls"), strings.HasSuffix(path, "counters"), k[0] >= '0' && k[0] <= '9':
				at = path + ".*"
			}
			h.walk(at, v[k], func(y any) { v[k] = y })
		}
	case []any:
		for i, x := range v {
			h.walk(path+"[]", x, func(y any) { v[i] = y })
		}
	}
}

func (h *hostility) try(path string, v any) {
	b, err := json.Marshal(h.doc)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() {
		if x := recover(); x != nil {
			h.t.Errorf("%s = %v: %v", path, v, x)
		}
	}()
	if r, err := Load(bytes.NewReader(b)); err == nil {
		tell(r)
	}
}

// hostile is what a value of a recording may be replaced by.
func hostile(v any) []any {
	switch v.(type) {
	case map[string]any:
		return []any{nil, map[string]any{}}
	case []any:
		return []any{nil, []any{}, []any{nil}}
	case float64:
		return []any{nil, 0, 65535, uint64(1<<64 - 1)}
	}
	return []any{nil, ""}
}

func FuzzLoad(f *testing.F) {
	b, err := os.ReadFile("testdata/rule.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, s := range []string{
		`{"format":"fathom packet 1"}`,
		`{"format":"fathom packet 1","flows":[{"losses":[{"sample":{},"at":{}}]}]}`,
		`{"format":"fathom packet 1","flows":[{"packets":18446744073709551615,"sample":[{"id":1,"hops":[{"kind":"rx","bytes":"RQAAHA=="}]}],"open_sample":{"id":1}}]}`,
		`{"format":"fathom packet 1","refusals":[null],"troubles":[null],"stages":[null,{}],"before":{"1":null},"at":{"1":null},"after":{"1":null,"2":{}}}`,
		`{"format":"fathom packet 1","refusals":[{"call":"sendto","count":1,"reason":101,"to":"10.0.0.1:5"}],"after":{"0":{"routes":[{}],"rules":[{}]}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Load(bytes.NewReader(b))
		if err != nil {
			return
		}
		one, err := tell(r)
		if err != nil {
			t.Skip(err)
		}
		if two, _ := tell(r); one != two {
			t.Errorf("told twice:\n%s\nand\n%s", one, two)
		}
	})
}
