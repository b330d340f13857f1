package promises

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// overload is a way to be asked for more than fits, with its account.
type overload struct {
	name  string
	needs []ktest.Feature
	try   func(t *testing.T, o overloaded)
}

// overloaded is what a way is tried with.
type overloaded struct {
	bin, self string
	n         int // system calls that are made
	r         *rand.Rand
	dir       string
	lost      *int // how often anything was lost
}

var overloads = []overload{
	{"ring", []ktest.Feature{ktest.Tracepoint, ktest.Ringbuf}, ringOverload},
	{"map", []ktest.Feature{ktest.Tracepoint, ktest.Ringbuf}, mapOverload},
	{"count", []ktest.Feature{ktest.Tracepoint, ktest.Ringbuf}, countOverload},
	{"recording", []ktest.Feature{ktest.Tracefs}, recordOverload},
	{"rank", []ktest.Feature{ktest.Tracepoint, ktest.BTF}, rankOverload},
}

// TestOverloads: in overloads drawn at random the account is exact: what was seen and what is said to be lost are together what was done,
// and --strict tells by its exit code.
func TestOverloads(t *testing.T) {
	ktest.Need(t, ktest.Tracepoint)
	r, lost, tried := dice(t), 0, 0
	o := overloaded{bin: fathom(t), self: worker(t), r: r, lost: &lost}
	var able []overload
	for _, w := range overloads {
		ok := true
		for _, f := range w.needs {
			ok = ok && ktest.Detect(f) == nil
		}
		if ok {
			able = append(able, w)
		}
	}
	for i := range times(t, sample(15, 2)) {
		w := able[i%len(able)]
		o.n, o.dir = 1+r.IntN(1+r.IntN(sample(100_000, 5_000))), t.TempDir()
		tried++
		w.try(t, o)
		if t.Failed() {
			t.Fatalf("%s, of %d calls", w.name, o.n)
		}
	}
	measured(t, "%d overloads of %d kinds, %d with losses: every account exact", tried, len(able), lost)
}

// account is what --strict prints of the program that sees the calls.
var account = regexp.MustCompile(`tracepoint_raw_syscalls_sys_enter: (\d+) runs, (\d+) filtered, (\d+) records printed, (\d+) lost \(ring full\), (\d+) map updates failed, (\d+) runs skipped`)

// traced runs a program over the calls, and gives its account: runs, filtered, printed, lost, failed, skipped.
func (o overloaded) traced(t *testing.T, program string) (got ran, acc []int) {
	t.Helper()
	got = working(t, exec.Command(o.bin, "trace", "--strict", "-e", program, "-c", o.self), o.n)
	m := account.FindStringSubmatch(got.stderr)
	if m == nil {
		t.Fatalf("%s\nexit code %d, no account:\n%s", program, got.code, got.stderr)
	}
	for _, s := range m[1:] {
		k, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		acc = append(acc, k)
	}
	if lost := acc[3] + acc[4] + acc[5]; (lost > 0) != (got.code == 3) || got.code != 0 && got.code != 3 {
		t.Errorf("%s\nexit code %d, %d lost\n%s", program, got.code, lost, got.stderr)
	}
	if acc[3]+acc[4]+acc[5] > 0 {
		*o.lost++
	}
	return got, acc
}

// calls are the system calls of the command, by number: only it makes them.
const calls = `tracepoint:raw_syscalls:sys_enter /pid == cpid && args.id == 110/`

// ringOverload prints each call, into a ring that may be small, in records that may be large.
func ringOverload(t *testing.T, o overloaded) {
	program := fmt.Sprintf(`config = { perf_rb_pages = %d; max_strlen = 128 } %s { printf("call %%d %%s\n", args.id, str("%s")); }`,
		1<<o.r.IntN(8), calls, strings.Repeat("x", o.r.IntN(60)))
	got, acc := o.traced(t, program)
	lines := strings.Count(got.stdout, "call 110")
	if acc[2] != lines || acc[2]+acc[3] != o.n || acc[0] != acc[1]+acc[2]+acc[3] {
		t.Errorf("%s\n%d calls, %d lines, account %v\n%s", program, o.n, lines, acc, got.stderr)
	}
}

// mapOverload has a key for each call, in a map that may be small.
func mapOverload(t *testing.T, o overloaded) {
	size := 1 + o.r.IntN(1+o.n)
	program := fmt.Sprintf(`config = { max_map_keys = %d } begin { @i = 0; } %s { @i++; @at[@i] = 1; } end { print(len(@at)); print(@i); clear(@at); clear(@i); }`, size+1, calls)
	got, acc := o.traced(t, program)
	var keys, seen int
	if _, err := fmt.Sscanf(got.stdout, "%d\n@i: %d\n", &keys, &seen); err != nil || seen != o.n || keys+acc[4] != o.n || keys > size+1 {
		t.Errorf("%s\n%d calls, %d seen, %d keys, account %v: %v\n%s%s", program, o.n, seen, keys, acc, err, got.stdout, got.stderr)
	}
}

// countOverload counts: nothing may be lost.
func countOverload(t *testing.T, o overloaded) {
	program := calls + ` { @ = count(); @by[cpu] = count(); @sum = sum(1); }`
	got, acc := o.traced(t, program)
	by, total := regexp.MustCompile(`(?m)^@by\[\d+\]: (\d+)$`), 0
	for _, m := range by.FindAllStringSubmatch(got.stdout, -1) {
		k, _ := strconv.Atoi(m[1])
		total += k
	}
	if want := fmt.Sprintf("@: %d\n", o.n); got.code != 0 || !strings.Contains(got.stdout, want) || total != o.n || !strings.Contains(got.stdout, fmt.Sprintf("@sum: %d\n", o.n)) {
		t.Errorf("%s\n%d calls, %d by CPU, account %v\n%s%s", program, o.n, total, acc, got.stdout, got.stderr)
	}
}

// recordOverload records all system calls of the machine, into rings that may be small.
func recordOverload(t *testing.T, o overloaded) {
	dir := filepath.Join(o.dir, "r")
	got := working(t, exec.Command(o.bin, "record", "--strict", "-q", "-j", "-e", "raw_syscalls:*", "--buffer", fmt.Sprintf("%dk", 4<<o.r.IntN(8)), "-o", dir, "--", o.self), o.n)
	var acc struct {
		Events, Helpers, Missed, Written uint64
		Exact                            bool
	}
	if err := json.Unmarshal([]byte(got.stdout), &acc); err != nil {
		t.Fatalf("exit code %d: %v\n%s%s", got.code, err, got.stdout, got.stderr)
	}
	if !acc.Exact || acc.Events+acc.Helpers+acc.Missed != acc.Written || (acc.Missed > 0) != (got.code == 3) {
		t.Errorf("exit code %d, account %+v\n%s", got.code, acc, got.stdout)
	}
	if acc.Missed > 0 {
		*o.lost++
	}
	stats := do(t, o.bin, "view", dir, "-j")
	if n := strings.Count(stats, `"event":"raw_syscalls:`); uint64(n) != acc.Events {
		t.Errorf("the account has %d events, the recording %d", acc.Events, n)
	}
}

// rankOverload counts the calls by a key.
func rankOverload(t *testing.T, o overloaded) {
	got := working(t, exec.Command(o.bin, "rank", "raw_syscalls:sys_enter", "--if", fmt.Sprintf("id == 110 && comm == %q", filepath.Base(o.self)[:min(15, len(filepath.Base(o.self)))]),
		"--by", "id", "--strict", "-j", "-q", "--", o.self), o.n)
	if want := fmt.Sprintf(`"hits":%d,"keys":{"id":`, o.n); got.code != 0 || strings.Count(got.stdout, `"type":"row"`) != 1 || !strings.Contains(got.stdout, want) {
		t.Errorf("%d calls, exit code %d\n%s%s", o.n, got.code, got.stdout, got.stderr)
	}
}
