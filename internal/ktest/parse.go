package ktest

import (
	"bufio"
	"io"
	"strings"
	"testing"
)

// marker stands before every line that the test framework, and not a test, wrote under -test.v=test2json.
const marker = "\x16"

// node is one test of a guest's run, or the run itself.
type node struct {
	name   string // without its parents'
	status string // PASS, FAIL, SKIP; "" if it never ended
	took   string // as the framework writes it: (1.23s)
	log    []string
	tests  []*node
}

// parse reads what a test binary writes under -test.v=test2json. Output cut short leaves tests without status.
func parse(r io.Reader) *node {
	root := &node{}
	cur := root
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		line := sc.Text()
		at := strings.Index(line, marker) // a test's last line may lack its newline
		if at < 0 {
			cur.log = append(cur.log, line)
			continue
		}
		if at > 0 {
			cur.log = append(cur.log, line[:at])
		}
		cur = root.event(line[at+len(marker):], cur)
	}
	return root
}

// event takes a line of the framework and returns the test whose output follows.
func (root *node) event(line string, cur *node) *node {
	f := strings.Fields(line)
	switch {
	case len(f) == 3 && f[0] == "===" && (f[1] == "RUN" || f[1] == "NAME" || f[1] == "CONT"):
		return root.find(f[2])
	case len(f) >= 2 && f[0] == "===":
		return cur
	case len(f) >= 3 && f[0] == "---":
		n := root.find(f[2])
		n.status, n.took = strings.TrimSuffix(f[1], ":"), strings.Join(f[3:], " ")
		return n
	}
	if line != "PASS" && line != "FAIL" {
		root.log = append(root.log, line)
	}
	return root
}

// find returns the node of a full name, made if new.
func (root *node) find(name string) *node {
	n := root
	for part := range strings.SplitSeq(name, "/") {
		i := 0
		for i < len(n.tests) && n.tests[i].name != part {
			i++
		}
		if i == len(n.tests) {
			n.tests = append(n.tests, &node{name: part})
		}
		n = n.tests[i]
	}
	return n
}

// report repeats a guest's results under t.
func (root *node) report(t *testing.T) {
	for _, n := range root.tests {
		t.Run(n.name, func(t *testing.T) {
			n.report(t)
			text := strings.Join(n.log, "\n")
			if n.took != "" {
				t.Log("in the guest:", n.took)
			}
			switch n.status {
			case "PASS":
				if text != "" {
					t.Log(text)
				}
			case "SKIP":
				t.Skip(text)
			case "FAIL":
				t.Error(text)
			default:
				t.Errorf("did not end\n%s", text)
			}
		})
	}
}
