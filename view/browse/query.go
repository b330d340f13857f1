package browse

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Views are what can be looked at, in the order they are offered.
var Views = []string{"events", "counts", "timeline", "latency", "stacks", "lost"}

// Query is what a page shows. Times are after the first event of the recording.
type Query struct {
	View        string
	Events      []string // patterns; none is all
	Filter      string   // a condition in the language of the kernel's filters
	Task        string   // a number or a name, in which * stands for any text
	CPUs        []int    // none is all
	From, Until time.Duration
	Skip        int    // events at From itself that were shown before
	Pair        string // of latencies: FROM[KEYS] TO[KEYS]
	Weight      string // of stacks: a field
}

// maxText bounds what a person may write in a field, in bytes.
const maxText = 2000

// ParseQuery reads the fields of the page's form.
func ParseQuery(v url.Values) (q Query, err error) {
	for _, vs := range v {
		if len(vs) > 1 || len(vs[0]) > maxText {
			return q, fmt.Errorf("a field twice, or of more than %d bytes", maxText)
		}
	}
	get := func(k string) string { return strings.TrimSpace(v.Get(k)) }
	q = Query{View: cmp.Or(get("view"), Views[0]), Events: strings.Fields(get("e")), Filter: get("filter"), Task: get("task"), Pair: get("pair"), Weight: get("weight")}
	if !slices.Contains(Views, q.View) {
		return q, fmt.Errorf("no view %q", q.View)
	}
	for _, t := range []struct {
		name string
		to   *time.Duration
	}{{"from", &q.From}, {"until", &q.Until}} {
		if text := get(t.name); text != "" {
			if *t.to, err = time.ParseDuration(text); err != nil || *t.to < 0 {
				return q, fmt.Errorf("%s: %q is no time after the first event, such as 1.5s", t.name, text)
			}
		}
	}
	for _, c := range strings.FieldsFunc(get("cpu"), func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(c)
		if err != nil || n < 0 {
			return q, fmt.Errorf("cpu: %q is no number of a CPU", c)
		}
		q.CPUs = append(q.CPUs, n)
	}
	if text := get("skip"); text != "" {
		if q.Skip, err = strconv.Atoi(text); err != nil || q.Skip < 0 {
			return q, fmt.Errorf("skip: %q is no number", text)
		}
	}
	return q, nil
}

// Condition is the filter and the task as one condition.
func (q Query) Condition() string {
	task := ""
	if n, err := strconv.Atoi(q.Task); err == nil {
		task = fmt.Sprintf("common_pid == %d", n)
	} else if q.Task != "" {
		task = fmt.Sprintf("comm ~ %q", strings.ReplaceAll(q.Task, `"`, "?"))
	}
	if task != "" && q.Filter != "" {
		return fmt.Sprintf("%s && (%s)", task, q.Filter)
	}
	return task + q.Filter
}

// form gives the query as fields, those that say nothing left out.
func (q Query) form() url.Values {
	v := url.Values{}
	set := func(k, text string) {
		if text != "" {
			v.Set(k, text)
		}
	}
	if q.View != Views[0] {
		set("view", q.View)
	}
	set("e", strings.Join(q.Events, " "))
	set("filter", q.Filter)
	set("task", q.Task)
	set("cpu", q.cpus())
	set("from", length(q.From))
	set("until", length(q.Until))
	set("pair", q.Pair)
	set("weight", q.Weight)
	if q.Skip > 0 {
		set("skip", strconv.Itoa(q.Skip))
	}
	return v
}

func length(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func (q Query) cpus() string {
	var out []string
	for _, c := range q.CPUs {
		out = append(out, strconv.Itoa(c))
	}
	return strings.Join(out, ",")
}

// Link is the address of a page, from another.
func (q Query) Link() string { return "?" + q.form().Encode() }

// with gives a query that differs from q.
func (q Query) with(change func(*Query)) Query {
	q.Skip = 0
	change(&q)
	return q
}
