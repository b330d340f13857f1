package cli

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// recordNames are the names that JSON records have for what all of them tell, with the Go types that may stand behind them.
// A name that is not here is a verb's own.
var recordNames = map[string][]string{
	"pid":         {"int", "*int", "uint32"},
	"tid":         {"int", "uint32", "uint64"},
	"cpu":         {"int", "*int", "uint32"},
	"comm":        {"string"},
	"dev":         {"string"},
	"type":        {"string"},           // what kind of line it is
	"netns":       {"string"},           // its name
	"netns_inode": {"uint64", "uint32"}, // its number
	"t":           {"uint64"},           // ns of the recording's clock
	"time":        {"time.Time"},        // of day
}

// synonyms are what those must not be called.
var synonyms = map[string]string{
	"process": "pid", "process_id": "pid", "thread": "tid", "thread_id": "tid", "processor": "cpu", "process_name": "comm", "command_name": "comm",
	"device": "dev", "iface": "dev", "ifname": "dev", "interface": "dev", "namespace": "netns", "net_ns": "netns", "ns": "netns",
	"timestamp": "t or time", "ts": "t or time", "func": "function",
}

// otherRecords are files whose JSON is no record of a verb: what others define, and what goes between our own processes.
var otherRecords = []string{
	"internal/timeline/timeline.go", "view/events/chrome.go", // Chrome's trace format
	"internal/lease/lease.go",                                                                            // the record of a lease
	"internal/polling/setting.go",                                                                        // the lease of settings
	"answers/packet/flow.go", "answers/packet/event.go", "answers/packet/stages.go", "netstate/state.go", // the file of packet -o
	"answers/packet/trail.go", // what hosts tell the one that joins
	"bypass/compare/side.go",  // jobs for the processes of bypass compare
	"bypass/prog/pin.go",      // the lease of a pin
	"lab/guest/qmp/qmp.go",    // QEMU's monitor
	"record/ctf/json.go",      // CTF 2's metadata
}

// encoders are files that may encode JSON by themselves, beside otherRecords: for other processes of ours and for files.
var encoders = []string{
	"answers/packet/save.go", "lab/guest/keep/start.go", "lab/guest/keep/answer.go", "lab/guest/keep/client.go", "lab/guest/keep/frozen.go",
	"record/session/client.go", "record/session/keeper.go", "internal/chromium/chromium.go",
	"internal/jsonl/jsonl.go", // for all others
}

// literalKey is a name of a field in JSON that is written by hand.
var literalKey = regexp.MustCompile(`"([a-z_]+)": ?(?:%|$|[["{0-9])`)

// literal judges a string: what writes JSON by hand has the names of all, too, and times of day are not written so.
func literal(s string) (wrong []string) {
	for _, m := range literalKey.FindAllStringSubmatch(s, -1) {
		if want, ok := synonyms[m[1]]; ok {
			wrong = append(wrong, fmt.Sprintf("a record calls %q what others call %s", m[1], want))
		}
		if kinds := recordNames[m[1]]; len(kinds) == 1 && kinds[0] == "time.Time" {
			wrong = append(wrong, fmt.Sprintf("%q is written by hand: encode a %s", m[1], kinds[0]))
		}
	}
	return wrong
}

func TestLiteral(t *testing.T) {
	for s, want := range map[string]int{
		`{"host": %s, "time": %d, "type": "text"}`: 1, `{"type": "value", "data": `: 0, `"ifname":"eth0"`: 1, `,"ns":`: 1, `time: %d`: 0, `"time"`: 0,
	} {
		if got := literal(s); len(got) != want {
			t.Errorf("%s: %v, want %d", s, got, want)
		}
	}
}

// key is the name of a field in JSON; "" if it has none.
func key(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	tag, _ := strconv.Unquote(f.Tag.Value)
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return name
}

// TestRecordsNameTheSame looks at every struct that is written as JSON: what all verbs tell has one name and one form.
func TestRecordsNameTheSame(t *testing.T) {
	seen := map[string]int{}
	for _, dir := range []string{"answers", "bypass", "internal", "lab", "netstate", "probe", "record", "view"} {
		err := filepath.WalkDir("../../"+dir, func(path string, d fs.DirEntry, err error) error {
			name := filepath.ToSlash(strings.TrimPrefix(path, "../../"))
			if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || slices.Contains(otherRecords, name) ||
				strings.HasPrefix(name, "internal/gen/") {
				return err
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.StructType); ok && len(s.Fields.List) > 0 && key(s.Fields.List[0]) == "kind" {
					t.Errorf("%s: a line of JSON says by \"type\" what it is, not by \"kind\"", set.Position(s.Pos()))
				}
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					s, _ := strconv.Unquote(lit.Value)
					for _, w := range literal(s) {
						t.Errorf("%s: %s", set.Position(n.Pos()), w)
					}
				}
				if m, ok := n.(*ast.CompositeLit); ok && m.Type != nil && types.ExprString(m.Type) == "map[string]any" {
					for _, e := range m.Elts {
						k, _ := e.(*ast.KeyValueExpr).Key.(*ast.BasicLit)
						if k == nil {
							continue
						}
						name, _ := strconv.Unquote(k.Value)
						if want, ok := synonyms[name]; ok {
							t.Errorf("%s: a record calls %q what others call %s", set.Position(k.Pos()), name, want)
						}
					}
				}
				if s, ok := n.(*ast.SelectorExpr); ok && types.ExprString(s) == "json.NewEncoder" && !slices.Contains(encoders, name) {
					t.Errorf("%s: lines of JSON are written by internal/jsonl", set.Position(n.Pos()))
				}
				field, ok := n.(*ast.Field)
				if !ok || field.Tag == nil {
					return true
				}
				key := key(field)
				seen[key]++
				if want, ok := synonyms[key]; ok {
					t.Errorf("%s: a record calls %q what others call %s", set.Position(field.Pos()), key, want)
				}
				if kinds, ok := recordNames[key]; ok && !slices.Contains(kinds, types.ExprString(field.Type)) {
					t.Errorf("%s: %q is %s, elsewhere one of %v", set.Position(field.Pos()), key, types.ExprString(field.Type), kinds)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range recordNames {
		if seen[name] == 0 {
			t.Errorf("no record has %q", name)
		}
	}
}
