package browse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/chromium"
	"github.com/fathom-trace/fathom/internal/loopback"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/match"
	"github.com/fathom-trace/fathom/view/events"
)

const common = `
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

`

var kinds = map[string]string{
	"sched:sched_switch": "name: sched_switch\nID: 1" + common + `	field:char next_comm[8];	offset:8;	size:8;	signed:0;
	field:int next_pid;	offset:16;	size:4;	signed:1;

print fmt: "next_comm=%s next_pid=%d", REC->next_comm, REC->next_pid
`,
	"net:queue": "name: queue\nID: 2" + common + `	field:int len;	offset:8;	size:4;	signed:1;

print fmt: "len=%d", REC->len
`,
	"ftrace:kernel_stack": "name: kernel_stack\nID: 3" + common + `	field:int size;	offset:8;	size:4;	signed:1;
	field:unsigned long caller[8];	offset:16;	size:64;	signed:0;

print fmt: "\t=> %ps\n", (void *)REC->caller[0]
`,
}

// list is events in memory.
type list struct {
	events []traceevent.Event
	at     int
}

func (l *list) Next(e *traceevent.Event) bool {
	if l.at == len(l.events) {
		return false
	}
	*e = l.events[l.at]
	l.at++
	return true
}

func (l *list) Err() error { return nil }

// begin is when the recording begins, in ns.
const begin = 5_000_000_000

// recording is so many rounds of: a task <b>N is switched to, which queues a packet of 100 + N bytes, behind which its stack is;
// two events of each round have the same time. In the middle 17 events are missing.
func recording(t testing.TB, rounds int) *Browser {
	t.Helper()
	f := map[string]*traceevent.Format{}
	var formats []*traceevent.Format
	for name, text := range kinds {
		one, err := traceevent.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		one.System, _, _ = strings.Cut(name, ":")
		f[name] = one
		formats = append(formats, one)
	}
	le := binary.LittleEndian
	rec := func(size, pid, at8 int) []byte {
		b := make([]byte, size)
		le.PutUint32(b[4:], uint32(pid))
		le.PutUint32(b[8:], uint32(at8))
		return b
	}
	var all []traceevent.Event
	for i := range rounds {
		at := uint64(begin + i*1_000_000)
		sw := rec(20, 0, 0)
		copy(sw[8:16], fmt.Sprintf("<b>%d", i%3))
		le.PutUint32(sw[16:], uint32(40+i%3))
		stack := rec(32, 40+i%3, 2)
		le.PutUint64(stack[16:], 0xffffffff81000010)
		le.PutUint64(stack[24:], 0xffffffff81000020)
		all = append(all, traceevent.Event{Time: at, CPU: i % 2, Format: f["sched:sched_switch"], Rec: sw},
			traceevent.Event{Time: at, CPU: i % 2, Format: f["net:queue"], Rec: rec(12, 40+i%3, 100+i)},
			traceevent.Event{Time: at + 10, CPU: i % 2, Format: f["ftrace:kernel_stack"], Rec: stack})
		if i == rounds/2 {
			all = append(all, traceevent.Event{Time: at + 500_000, CPU: i % 2, Lost: 17, Since: at + 10})
		}
	}
	same := func(pattern, system, name string) bool { return pattern == name || pattern == system+":"+name }
	comm := func(tid int, _ uint64) (string, bool) { return fmt.Sprintf("<b>%d", tid-40), tid >= 40 }
	return &Browser{Title: "a <recording>", Top: 2, Match: same, Open: func(q Query) (*Reading, error) {
		cond, err := match.Parse(strings.TrimSpace(q.Condition()+" "), func(e *traceevent.Event) (string, bool) { return comm(int(e.Format.PIDField().Int(e.Rec)), 0) })
		if q.Condition() == "" {
			cond, err = nil, nil
		}
		if err != nil {
			return nil, err
		}
		taken := false
		pick := func(e *traceevent.Event) bool {
			if e.Format.IsStack() {
				return taken
			}
			at := time.Duration(e.Time - begin)
			taken = at >= q.From && (q.Until == 0 || at <= q.Until) && (len(q.CPUs) == 0 || slices.Contains(q.CPUs, e.CPU)) && (cond == nil || cond.Match(e)) &&
				(e.Format == nil || len(q.Events) == 0 || same(q.Events[0], e.Format.System, e.Format.Name))
			return taken
		}
		return &Reading{Stream: &list{events: all}, Pick: pick, Source: &events.Source{Env: &traceevent.Env{}, Comm: comm}, Formats: formats, Start: begin,
			Notes: []string{"a note of <it>"}, Close: func() {}}, nil
	}}
}

// pageOf asks for a page.
func pageOf(t *testing.T, b *Browser, query string) string {
	t.Helper()
	form, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	p := b.Page(context.Background(), form)
	html := string(p.HTML)
	if !strings.HasSuffix(html, "</body></html>\n") {
		t.Errorf("%s: the page does not end", query)
	}
	if strings.Contains(html, "<b>0") || strings.Contains(html, "<recording>") || strings.Contains(html, "<it>") {
		t.Errorf("%s: what was recorded is HTML", query)
	}
	return html
}

func TestPages(t *testing.T) {
	b := recording(t, 10)
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"", []string{"sched_switch: next_comm=&lt;b&gt;0 next_pid=40", "LOST 17 EVENTS", "len=109", "21 events, the last ones", "a note of &lt;it&gt;", "=&gt; 0xffffffff81000020"}},
		{"filter=len+%3E+108", []string{"len=109", "2 events, the last ones", `value="len &gt; 108"`}}, // and the gap, which fulfils all
		{"view=counts", []string{"30 events in 9ms", "33.33%<td><a href=\"?e=net%3Aqueue\">net:queue</a>", ">&lt;b&gt;0-40</a>", "and 2 more", ">17</a>", `id="when"`}},
		{"view=timeline", []string{"<title>&lt;b&gt;0-40</title>", "events are missing", "<a href=\"?from="}},
		{"view=latency", []string{"Between which two events?"}},
		{"view=latency&pair=sched_switch%5Bnext_pid%5D+queue%5Bcommon_pid%5D", []string{"sched_switch to queue: 10", "The longest", `class="heat"`}},
		{"view=stacks&e=queue&weight=len", []string{"0xffffffff81000020 (418 len"}},
		{"view=lost", []string{"17 events are missing in 1 gaps", "<td>5.00001ms<td><a href=\"?from=4.50001ms&amp;until=6ms\">5.5ms</a>"}},
		{"view=lost&until=1ms", []string{"Nothing is missing here"}},
		{"task=41&e=queue", []string{"len=101", "len=104"}},
		{"from=9ms", []string{"len=109", "from the beginning"}},
		{"filter=len+%3E", []string{`id="error"`, "a value is missing"}},
		{"view=nosuch", []string{"no view &#34;nosuch&#34;"}},
		{"from=x", []string{"is no time after the first event"}},
		{"cpu=-1", []string{"is no number of a CPU"}},
		{"skip=a", []string{"is no number"}},
	} {
		text := pageOf(t, b, c.query)
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("?%s: no %q in\n%.6000s", c.query, w, text)
			}
		}
	}
}

// TestNext: pages that follow each other show every event once, also those that have the same time, and stacks stay with their
// events.
func TestNext(t *testing.T) {
	b := recording(t, 700) // 1,401 events, and 700 stacks
	query, seen, stacks := "", 0, 0
	var sizes []int
	for n := 0; n < 10; n++ {
		html := pageOf(t, b, query)
		shown := strings.Count(html, `">⋮</a>`)
		seen += shown
		stacks += strings.Count(html, "kernel_stack:")
		sizes = append(sizes, shown)
		_, rest, ok := strings.Cut(html, `<p id="more">`)
		if !ok {
			break
		}
		_, rest, _ = strings.Cut(rest, `href="?`)
		query, _, _ = strings.Cut(rest, `"`)
		query = strings.ReplaceAll(query, "&amp;", "&")
	}
	if d := cmp.Diff([]int{500, 500, 401}, sizes); d != "" || seen != 1401 || stacks != 700 {
		t.Errorf("%d events and %d stacks in pages of %v\n%s", seen, stacks, sizes, d)
	}
}

// TestQuery: what a form says is the same after it went through a link.
func TestQuery(t *testing.T) {
	want := Query{View: "latency", Events: []string{"a:*", "b"}, Filter: "x > 1", Task: "ssh*", CPUs: []int{0, 3}, From: time.Millisecond, Until: 3 * time.Second, Skip: 2, Pair: "a b", Weight: "len"}
	form, err := url.ParseQuery(strings.TrimPrefix(want.Link(), "?"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseQuery(form)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if c := got.Condition(); c != `comm ~ "ssh*" && (x > 1)` {
		t.Error(c)
	}
	if _, err := ParseQuery(url.Values{"e": {"a", "b"}}); err == nil {
		t.Error("a field twice")
	}
	if _, err := ParseQuery(url.Values{"e": {strings.Repeat("a", maxText+1)}}); err == nil {
		t.Error("a long field")
	}
}

// TestEnded: a page whose reader is gone is not read to its end.
func TestEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if p := recording(t, 1).Page(ctx, url.Values{"view": {"counts"}}); p.OK || !strings.Contains(string(p.HTML), context.Canceled.Error()) {
		t.Errorf("%s", p.HTML)
	}
}

// TestDensity: events and gaps are in the column of their time, whatever time that is.
func TestDensity(t *testing.T) {
	d := newDensity()
	f := &traceevent.Format{}
	for _, at := range []uint64{1000, 1001, 1000 + 1<<20, 1000 + 1<<40} {
		d.add(&traceevent.Event{Time: at, Format: f})
	}
	d.add(&traceevent.Event{Time: 1000 + 1<<40, Since: 1000 + 1<<39})
	sum := uint64(0)
	for _, m := range d.Parts {
		sum += m.n
	}
	last := int(uint64(1<<40) / d.Width)
	if sum != 4 || d.Parts[0].n != 3 || len(d.Parts) != last+1 || len(d.Parts) > columns || d.Parts[last].n != 1 || d.Parts[last/2-1].lost || !d.Parts[last/2].lost || !d.Parts[last].lost {
		t.Errorf("%+v", d.Columns)
	}
}

// FuzzQuery: no form makes a page that is not whole, or lets what a person wrote be HTML.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"view=counts&e=a+b", "filter=%3Cscript%3E&task=%22&cpu=0,1&from=1ms&until=1h&skip=3", "view=latency&pair=a%5Bb%5D+c%5Bd%5D", "view=stacks&weight=len"} {
		f.Add(s)
	}
	b := recording(f, 3)
	f.Fuzz(func(t *testing.T, s string) {
		form, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		html := string(b.Page(context.Background(), form).HTML)
		if !strings.HasSuffix(html, "</body></html>\n") || strings.Contains(strings.ReplaceAll(html, "<script>\nvar W", ""), "<script") {
			t.Errorf("%s", html)
		}
	})
}

// TestChromium: a person browses a recording in a real browser: what is there is read, a condition that is typed is fulfilled, a
// click on a gap leads to it, the flame graph's script runs, and nothing complains.
func TestChromium(t *testing.T) {
	tab := chromium.Open(t, os.Getenv("FATHOM_SOAK") != "")
	b := recording(t, 700)
	srv, err := loopback.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- srv.Serve(ctx, func(ctx context.Context, _ string, q url.Values) loopback.Response {
			p := b.Page(ctx, q)
			return loopback.Response{Body: p.HTML, Scripts: p.Scripts}
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	reads := func(what string, want ...string) {
		t.Helper()
		text := tab.Text()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%.2000s", what, w, text)
			}
		}
	}
	tab.Go(srv.URL())
	reads("the first page", "a <recording>", "a note of <it>", "sched_switch: next_comm=<b>0 next_pid=40", "500 events. The next")
	tab.Click("#more a")
	reads("the next page", "500 events. The next")
	tab.Type("input[name=filter]", "len > 797 && comm ~ \"<b>*\"")
	tab.Enter()
	if n := tab.Eval("document.querySelectorAll('#events a').length"); n != "3" { // len of 798 and 799, and the gap
		// From is that of the page before.
		t.Errorf("%s events fulfil what was typed", n)
	}
	reads("what was typed", "len=798", "len=799")
	tab.Go(srv.URL() + "?view=lost")
	reads("what was lost", "17 events are missing in 1 gaps")
	tab.Click("td a")
	reads("around a gap", "LOST 17 EVENTS")
	tab.Go(srv.URL() + "?view=counts")
	reads("counts", "net:queue", "2100 events")
	tab.Click("#when a:nth-of-type(2)")
	if from := tab.Eval("document.querySelector('input[name=from]').value"); from == "" {
		t.Error("a click on a time chooses none")
	}
	tab.Go(srv.URL() + "?view=timeline")
	reads("what ran", "CPU 0", "CPU 1")
	tab.Go(srv.URL() + "?view=stacks")
	tab.Eval("document.querySelectorAll('g.f')[1].dispatchEvent(new MouseEvent('mouseover')); ''")
	if said := tab.Eval("document.getElementById('said').textContent"); !strings.Contains(said, "events, ") {
		t.Errorf("the flame graph's script says %q", said)
	}
	if len(tab.Errors) > 0 {
		t.Errorf("the browser complains: %q", tab.Errors)
	}
	tab.Go(strings.TrimSuffix(srv.URL(), "/") + "x/")
	reads("without the token", "fathom: without the token that fathom printed")
	tab.Eval("document.body.innerHTML")
}
