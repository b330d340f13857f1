package guest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var option = regexp.MustCompile(`^CONFIG_[A-Z0-9_]+=[ym]$`)

// TestConfigFragment: it has the form, no option twice, and none that a kernel of today does not know: Debian's has all but
// what is for gdb.
func TestConfigFragment(t *testing.T) {
	seen := map[string]bool{}
	debian := ""
	if dir, err := os.UserCacheDir(); err == nil {
		files, _ := filepath.Glob(filepath.Join(dir, "fathom", "kernels", "linux-image-6.12*-amd64", "boot", "config-*"))
		if len(files) > 0 {
			b, _ := os.ReadFile(files[0])
			debian = string(b)
		}
	}
	for line := range strings.Lines(ConfigFragment) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		if !option.MatchString(line) || seen[name] {
			t.Errorf("%q", line)
		}
		seen[name] = true
		if debian != "" && !strings.Contains(debian, name+"=") && !strings.Contains(debian, "# "+name+" is not set") {
			t.Errorf("%s is not known to Debian's 6.12", name)
		}
	}
}
