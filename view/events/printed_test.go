package events

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// printedLines is what a program says that prints histograms three times: one that it clears, one that it does not, and one with
// keys.
const printedLines = `{"type": "attached_probes", "data": {"probes": 2}}
{"type": "hist", "data": {"@us": [{"min": 0, "max": 0, "count": 1}, {"min": 1, "max": 1, "count": 0}, {"min": 2, "max": 3, "count": 8}]}}
{"type": "hist", "data": {"@all": [{"max": 9, "count": 2}, {"min": 10, "max": 19, "count": 1}]}}
{"type": "hist", "data": {"@by": {"a<b": [{"min": 4, "max": 7, "count": 3}], "c": [{"min": 1, "max": 1, "count": 1}]}}}
{"type": "printf", "data": "no \"hist\" here\n"}
{"type": "hist", "data": {"@us": [{"min": 1024, "max": 2047, "count": 5}]}}
{"type": "hist", "data": {"@all": [{"max": 9, "count": 2}, {"min": 10, "max": 19, "count": 1}, {"min": 20, "count": 4}]}}
{"type": "hist", "data": {"@by": {"c": [{"min": 1, "max": 1, "count": 1}]}}}
{"type": "hist", "data": {"@us": [{"min": 0, "max": 0, "count": 1}, {"min": "9007199254740993", "max": "9223372036854775807", "count": 1}]}}
{"type": "hist", "data": {"@all": [{"max": 9, "count": 3}, {"min": 10, "max": 19, "count": 1}, {"min": 20, "count": 4}]}}
{"type": "hist", "data": {"@by": {"a<b": [{"min": 4, "max": 7, "count": 3}], "c": [{"min": 1, "max": 1, "count": 1}]}}}
`

// TestHistograms: a column for each printing, a row for each bucket, and of a map that only grows what came each time.
func TestHistograms(t *testing.T) {
	hs, err := ReadHistograms(strings.NewReader(printedLines))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := HistogramsText(&b, hs, 60, false); err != nil {
		t.Fatal(err)
	}
	const want = `
@us: 16

 9.01e+15 |  .
       2K |
       1K | #
        4 |
        2 |@
        1 |
        0 |. .
          +---
           0 3
a column is a printing; a row is what is so much, up to the row above; in a cell: . 1 = 2 + 3 * 4 # 5 % 6 @ 8 or more

@all: 8

       20 | @
       10 |.
     less |+ .
          +---
           0 3
a column is a printing, and has what came since the one before; a row is what is so much, up to the row above; in a cell: . 1 + 2 # 3 @ 4 or more

@by[a<b]: 6

        4 |@ @
          +---
           0 3
a column is a printing; a row is what is so much, up to the row above; in a cell: . 1 * 2 @ 3 or more

@by[c]: 3

        1 |@@@
          +---
           0 3
a column is a printing; a row is what is so much, up to the row above; in a cell: @ 1 or more
`
	if got := b.String(); got != want[1:] {
		t.Errorf("%s\nwant%s", got, want)
	}
	b.Reset()
	if err := HistogramsPage(&b, hs, "a <title>"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`class="heat"`, "a &lt;title&gt;", "@by[a&lt;b]: 6", "prefers-color-scheme:dark", "<title>5 from 1024 to 2047, in printing 2</title>", "<title>2 to 9, in printing 1</title>",
		"<title>4 from 20 on, in printing 2</title>", "</svg>", "</body></html>"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestManyHistograms: more printings than columns, and more buckets than rows, are drawn together, and none is left out.
func TestManyHistograms(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `{"type": "hist", "data": {"@": [{"min": %d, "max": %d, "count": 2}]}}`+"\n", i%500*10, i%500*10+9)
	}
	hs, err := ReadHistograms(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	c, sum := hs[0].cells(60, textRows), uint64(0)
	for i := range c.columns {
		for r := range c.rows {
			sum += c.n(i, r)
		}
	}
	if c.columns != 59 || c.rows != 39 || sum != 2000 || !strings.Contains(c.say, "17 printings") {
		t.Errorf("%d columns, %d rows, %d in all; %s", c.columns, c.rows, sum, c.say)
	}
}

// TestBadHistograms: what is no histogram is told with its line.
func TestBadHistograms(t *testing.T) {
	for in, want := range map[string]string{
		`{"type": "hist", "data": {"@": 7}}`:                                                     "line 1: @: json: cannot unmarshal number",
		"\n" + `{"type": "hist", "data": {"@": [{"min": "x"}]}}`:                                 `line 2: @: strconv.ParseInt: parsing "x"`,
		`{"type": "hist", "data": {"@": {"k": [{"min": 4, "max": 3}]}}}`:                         "line 1: @[k]: a bucket from 4 to 3",
		`{"type": "hist", "data": {"@": [{"min": 4, "max": 5, "count": -1}]}}`:                   "line 1: @: json: cannot unmarshal number -1",
		`{"type": "hist", "data": {"@": [{"min": 4, "max": 5, "count": 18446744073709551615}]}}`: "line 1: @: more than 9007199254740992 are counted",
		strings.Repeat("x", mostPrinted+1):                                                       "token too long",
	} {
		if _, err := ReadHistograms(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", in, err, want)
		}
	}
}

func FuzzHistograms(f *testing.F) {
	f.Add([]byte(printedLines))
	f.Add([]byte(`{"type":"hist","host":"h","data":{"@":[{"max":-9223372036854775808,"count":18446744073709551615},{"min":9223372036854775807,"count":1}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		hs, err := ReadHistograms(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		if err := HistogramsText(io.Discard, hs, 40, true); err != nil {
			t.Error(err)
		}
		if err := HistogramsPage(io.Discard, hs, ""); err != nil {
			t.Error(err)
		}
	})
}
