package record

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/traceevent"
)

// TestLTTng reads what LTTng wrote, and compares each event with what babeltrace2 makes of it: time, CPU, name, contexts and fields.
// FATHOM_CTF names folders of larger traces to be compared, too.
func TestLTTng(t *testing.T) {
	program := oracle.Path(t, "babeltrace2")
	for _, dir := range append([]string{"testdata/lttng-ust", "testdata/lttng-kernel"}, filepath.SplitList(os.Getenv("FATHOM_CTF"))...) {
		comparePeer(t, program, dir)
	}
}

var peerLine = regexp.MustCompile(`^\[(\d+)\] (?:\S+ )?([^ ]+): (\{.*\})$`)

// comparePeer compares all events of a trace. Those of one time may come in another order.
func comparePeer(t *testing.T, program, dir string) {
	t.Helper()
	tr, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	cmd := exec.Command(program, "--clock-cycles", "--no-delta", dir)
	cmd.Stderr = nil // which tells of what was discarded
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	n, bad := 0, 0
	var ours, theirs []string // of one time
	last := map[string]string{}
	now := uint64(0)
	flush := func() {
		slices.Sort(ours)
		slices.Sort(theirs)
		if !slices.Equal(ours, theirs) {
			if bad++; bad < 4 {
				t.Errorf("%s at %d\n got %s\nwant %s", dir, now, strings.Join(ours, "\n     "), strings.Join(theirs, "\n     "))
			}
		}
		ours, theirs = ours[:0], theirs[:0]
	}
	s := tr.Events()
	var e traceevent.Event
	for s.Next(&e) {
		if e.Format == nil {
			continue
		}
		m := []string(nil)
		if lines.Scan() {
			m = peerLine.FindStringSubmatch(lines.Text())
		}
		if m == nil {
			t.Fatalf("%s: babeltrace2 says %q for event %d", dir, lines.Text(), n)
		}
		n++
		at, _ := strconv.ParseUint(m[1], 10, 64)
		if e.Time != now {
			flush()
			now = e.Time
		}
		p := peerFields(m[3])
		p.emptied(&e, last)
		ours = append(ours, oursAsPeer(&e, p.names))
		theirs = append(theirs, fmt.Sprintf("%d %s %s", at, m[2], strings.Join(p.values, " ")))
	}
	flush()
	more := lines.Scan()
	if err := cmd.Wait(); err != nil || s.Err() != nil || more || bad > 0 || n == 0 {
		t.Errorf("%s: %d events, %d times not alike, more: %v; %v, %v", dir, n, bad, more, err, s.Err())
	}
	t.Logf("%s: %d events compared with babeltrace2's", dir, n)
}

// TestLTTngText: numbers of enumerations have their names, floats are read as such, and the task's name is that of LTTng's context.
func TestLTTngText(t *testing.T) {
	tr, err := Open("testdata/lttng-ust")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	var sales []string
	for e := range traceevent.All(tr.Events()) {
		if e.Format.Name == "sale" {
			sales = append(sales, string(e.Format.CommField().String(e.Rec))+" "+string(e.Format.AppendFields(nil, e.Rec)))
		}
	}
	for i, want := range map[int]string{1: " price=0.3333333333333333 fl=0.33333334 st=1 (BUSY) sc=-1 ", 8: " st=8 sc=-8 ", 9: " fl=3 st=9 (CLOSED) sc=-9 "} {
		if len(sales) != 60 || !strings.HasPrefix(sales[i], "tp ") || !strings.Contains(sales[i], want) {
			t.Errorf("of %d: %s, want %s", len(sales), sales[min(i, len(sales)-1)], want)
		}
	}
}

// TestLTTngKernel: what a workload with known counts did is in the trace that LTTng's kernel tracer made of it.
func TestLTTngKernel(t *testing.T) {
	tr, err := Open("testdata/lttng-kernel")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	counts, ports := map[string]int{}, map[uint64]bool{}
	for e := range traceevent.All(tr.Events()) {
		if string(e.Format.CommField().String(e.Rec)) == "wl" {
			counts[e.Format.Name]++
		}
		if e.Format.Name == "net_dev_queue" {
			ports[e.Format.Field("network_header_ipv4_transport_header_udp_dest_port").Uint(e.Rec)] = true
		}
	}
	want := map[string]int{"syscall_entry_getppid": 50, "syscall_exit_getppid": 50, "net_dev_queue": 20, "net_if_receive_skb": 20, "syscall_entry_execve": 2, "syscall_entry_wait4": 2, "syscall_exit_wait4": 2}
	for name, n := range want {
		if counts[name] != n {
			t.Errorf("%s: %d, of %d", name, counts[name], n)
		}
	}
	if len(ports) != 1 || !ports[57431] {
		t.Errorf("datagrams to ports %v, all were sent to 57431", ports)
	}
}

// peer is what babeltrace2 printed, flat: groups are the packet's context, those of events, and the fields.
type peer struct {
	text          string
	names, values []string
	labels        map[string]string // of enumerations
}

func peerFields(text string) *peer {
	p := &peer{text: text, labels: map[string]string{}}
	for p.text != "" {
		p.value("")
		p.text = strings.TrimLeft(p.text, ", ")
	}
	return p
}

// emptied undoes what babeltrace2 2.0.4 does to a text that is empty: it shows that of the event of this kind before it.
func (p *peer) emptied(e *traceevent.Event, last map[string]string) {
	for i, n := range p.names {
		key := e.Format.Name + " " + n
		was := last[key]
		last[key] = p.values[i]
		if f := e.Format.Field(n); f != nil && f.IsText() && len(f.String(e.Rec)) == 0 && p.values[i] == was {
			p.values[i] = n + `=""`
		}
	}
}

func (p *peer) skip(s string) bool {
	rest, ok := strings.CutPrefix(p.text, s)
	if ok {
		p.text = strings.TrimLeft(rest, " ")
	}
	return ok
}

// scalar matches a number, and what is behind an enumeration's name.
var scalar = regexp.MustCompile(`^[-+0-9a-zA-Z.]+`)

// value reads a value of the name.
func (p *peer) value(name string) {
	switch {
	case p.skip("{ {"): // a variant, of which the option is not named: as LTTng names them, X_type says which of X it is
		p.text = "{" + p.text
		p.value(name + "_" + strings.TrimPrefix(p.labels[name+"_type"], "_"))
		p.skip("}")
	case p.skip("{"):
		for !p.skip("}") && p.text != "" {
			member, rest, _ := strings.Cut(p.text, " = ")
			p.text = rest
			if name != "" {
				member = name + "_" + strings.TrimPrefix(member, "_")
			}
			p.value(member)
			p.skip(",")
		}
	case p.skip("["):
		at := len(p.values)
		for !p.skip("]") && p.text != "" {
			_, p.text, _ = strings.Cut(p.text, " = ")
			p.value(name)
			p.skip(",")
		}
		for i := range p.values[at:] {
			p.values[at+i] = p.values[at+i][strings.IndexByte(p.values[at+i], '=')+1:]
		}
		list := name + "=[" + strings.Join(p.values[at:], ",") + "]"
		p.names, p.values = append(p.names[:at], name), append(p.values[:at], list)
	case p.skip("("):
		var label string
		label, p.text, _ = strings.Cut(p.text, "container = ")
		label, _, _ = strings.Cut(strings.TrimPrefix(label, `"`), `"`)
		p.labels[name] = label
		p.value(name)
		p.skip(")")
	case strings.HasPrefix(p.text, `"`):
		quoted, _ := strconv.QuotedPrefix(p.text)
		p.text = strings.TrimLeft(p.text[len(quoted):], " ")
		s, _ := strconv.Unquote(quoted)
		p.add(name, strconv.Quote(s))
	default:
		v := scalar.FindString(p.text)
		p.text = strings.TrimLeft(p.text[len(v):], " ")
		if f, err := strconv.ParseFloat(v, 64); err == nil && strings.ContainsAny(v, ".en") && !strings.HasPrefix(v, "0x") {
			v = strconv.FormatFloat(f, 'g', 6, 64)
		} else if n, err := strconv.ParseInt(v, 0, 64); err == nil {
			v = strconv.FormatInt(n, 10)
		} else if n, err := strconv.ParseUint(v, 0, 64); err == nil {
			v = strconv.FormatInt(int64(n), 10)
		} else if v == "" {
			p.text = "" // not as it should be: the comparison tells
		}
		p.add(name, v)
	}
}

func (p *peer) add(name, value string) {
	p.names, p.values = append(p.names, name), append(p.values, name+"="+value)
}

// oursAsPeer writes what we read under the names that babeltrace2 has, in its order, and behind it what it does not have, such as
// options of variants that this event has not chosen.
func oursAsPeer(e *traceevent.Event, names []string) string {
	full := e.Format.Name
	if e.Format.System != "" {
		full = e.Format.System + ":" + full
	}
	out := fmt.Sprintf("%d %s", e.Time, full)
	seen := map[string]int{}
	for _, n := range names {
		seen[n]++
	}
	told := map[*traceevent.Field]bool{}
	for _, n := range names {
		f := e.Format.Field(n)
		if f != nil && !f.There(e.Rec) {
			f = nil
		}
		if seen[n] > 1 { // a context, and behind it a field of the event
			seen[n] = 1
			if c := e.Format.Field("context_" + n); c != nil {
				f = c
			}
		}
		told[f] = true
		switch {
		case n == "cpu_id" && f == nil:
			out += fmt.Sprintf(" %s=%d", n, e.CPU)
		case strings.HasPrefix(n, "_") && strings.HasSuffix(n, "_length"):
			out += fmt.Sprintf(" %s=%d", n, length(e.Format.Field(strings.TrimSuffix(n[1:], "_length")), e.Rec))
		case f == nil && slices.Contains([]string{"tid", "vtid", "pid", "vpid"}, n):
			out += fmt.Sprintf(" %s=%d", n, e.Format.PIDField().Int(e.Rec))
		case f == nil:
			out += " " + n + "=?"
		default:
			out += " " + n + "=" + oursValue(f, e.Rec)
		}
	}
	for i := range e.Format.Fields {
		if f := &e.Format.Fields[i]; !f.Common && !told[f] && f.There(e.Rec) {
			out += " and " + f.Name + "=" + oursValue(f, e.Rec)
		}
	}
	return out
}

func length(f *traceevent.Field, rec []byte) int { return len(f.Bytes(rec)) / f.ElemSize() }

// inList matches the members of structs that are in an array, which are text to us.
var inList = regexp.MustCompile(`=(-?[0-9a-fx]+)`)

func oursValue(f *traceevent.Field, rec []byte) string {
	switch {
	case f.IsText() && f.Type != "string" && strings.HasPrefix(string(f.String(rec)), "{"):
		var list []string
		for _, m := range inList.FindAllSubmatch(f.String(rec), -1) {
			n, _ := strconv.ParseInt(string(m[1]), 0, 64)
			list = append(list, strconv.FormatInt(n, 10))
		}
		return "[" + strings.Join(list, ",") + "]"
	case f.IsText():
		return strconv.Quote(string(f.String(rec)))
	case f.IsArray():
		one := traceevent.Field{Size: f.ElemSize(), Signed: f.Signed}
		var list []string
		for b := f.Bytes(rec); len(b) >= one.Size; b = b[one.Size:] {
			list = append(list, number(&one, b))
		}
		return "[" + strings.Join(list, ",") + "]"
	case f.Type == "float" || f.Type == "double":
		v, _ := strconv.ParseFloat(string(f.AppendValue(nil, rec)), 64)
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
	return number(f, rec)
}

func number(f *traceevent.Field, rec []byte) string {
	if f.Signed {
		return strconv.FormatInt(f.Int(rec), 10)
	}
	return strconv.FormatInt(int64(f.Uint(rec)), 10)
}
