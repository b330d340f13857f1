package live_test

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/netstate/live"
)

var (
	counted = regexp.MustCompile(`counter packets \d+ bytes \d+`)
	tail    = regexp.MustCompile(` comment "[^"]*"$`)
)

// listed are the rules nft lists, by chain: "inet t/c" → lines without handles, comments and counters' values.
func listed(text string) map[string][]string {
	out := map[string][]string{}
	table, chain := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		rule, handle, _ := strings.Cut(line, " # handle ")
		switch w := strings.Fields(rule); {
		case len(w) == 0:
		case w[0] == "table":
			table = w[1] + " " + w[2]
		case w[0] == "chain":
			chain = table + "/" + w[1]
		case w[0] == "set", w[0] == "map":
			chain = ""
		case handle != "" && chain != "" && !strings.HasSuffix(rule, "{"):
			rule = counted.ReplaceAllString(rule, "counter")
			out[chain] = append(out[chain], tail.ReplaceAllString(rule, "")+" #"+strings.TrimSpace(handle))
		}
	}
	return out
}

// TestNFT: every rule of testdata/rules.nft, and of what iptables-nft makes, is written as nft lists it.
func TestNFT(t *testing.T) {
	s := newSpace(t)
	need(t, "nft")
	s.setup("ip link set lo up")
	if err := s.load("testdata/rules.nft"); err != nil {
		t.Fatal(err)
	}
	compareRules(t, s)
	if os.Getenv("FATHOM_UPDATE") != "" && !t.Failed() { // what netstate/nft's own tests read
		b, err := json.MarshalIndent(s.Read(live.NFT).Firewall(), "", "\t")
		if err := errors.Join(err, os.WriteFile("../nft/testdata/rules.json", append(b, '\n'), 0o644)); err != nil {
			t.Error(err)
		}
	}
}

func (s space) load(file string) error {
	if _, err := os.Stat(file); err != nil {
		return err
	}
	s.run("nft -f " + file)
	return nil
}

func compareRules(t *testing.T, s space) {
	t.Helper()
	want := listed(string(s.run("nft -a list ruleset")))
	got := s.Read(live.NFT)
	if got.Missing != nil {
		t.Error(got.Missing)
	}
	n, bad := 0, 0
	for _, c := range got.Chains {
		lines := want[c.Family+" "+c.Table+"/"+c.Name]
		if len(lines) != len(c.Rules) {
			t.Errorf("%s: %d rules, nft lists %d", c.Name, len(c.Rules), len(lines))
			continue
		}
		for i, r := range c.Rules {
			n++
			text, handle, _ := strings.Cut(lines[i], " #")
			if r.Text != text || handle != strings.TrimSpace(handle) {
				bad++
				t.Errorf("%s %s\ngot  %s\nwant %s", c.Family, c.Name, r.Text, text)
			}
		}
	}
	t.Logf("%d of %d rules", n-bad, n)
	if n == 0 {
		t.Error("no rules")
	}
}
