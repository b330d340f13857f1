package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fathom-trace/fathom/internal/chromium"
)

// TestPages opens the pages that verbs write in a browser.
// testdata/histograms.json is of fathom trace -j: reads and writes timed, their @us printed and cleared every 50 ms for a second.
func TestPages(t *testing.T) {
	tab := chromium.Open(t, os.Getenv("FATHOM_SOAK") != "")
	dir := t.TempDir()
	for _, p := range []struct {
		name string
		args []string // FILE is what is written
		file string
		want []string
	}{
		{"view", []string{"view", "../../record/perfdata/testdata/packed.data", "--html", "FILE", "-q"}, "page.html", []string{"packed.data", "events"}},
		{"heat-map", []string{"view", "../../record/perfdata/testdata/packed.data", "--latency", "cpu-clock cpu-clock", "--html", "FILE", "-q"}, "heat.html", []string{"From cpu-clock to cpu-clock", "or more in a cell", "LONGEST"}},
		{"histograms", []string{"view", "testdata/histograms.json", "--heatmap", "--html", "FILE", "-q"}, "histograms.html", []string{"@us[read]", "or more in a cell", "a column is a printing"}},
		{"flame-graph", []string{"view", "../../record/perfdata/testdata/packed.data", "--to", "flame", "-o", "FILE", "-q"}, "flame.svg", []string{"packed.data", "search", "100.00%"}},
		{"packet-path", []string{"packet", "explain", "../../answers/packet/testdata/rule.json", "--html", "FILE"}, "packet.html", []string{"LOST", "nft"}},
		{"nic-map", []string{"nic", "lo", "--html", "FILE"}, "nic.html", []string{"interrupts", "CPUs", "queues", "rx-0"}},
	} {
		file := filepath.Join(dir, p.file)
		args := make([]string, len(p.args))
		for i, a := range p.args {
			if args[i] = a; a == "FILE" {
				args[i] = file
			}
		}
		if code, out := output(t, args...); code != 0 {
			t.Fatalf("fathom %v: exit code %d\n%s", args, code, out)
		}
		tab.Alone(p.name, file, p.want...)
	}
}
