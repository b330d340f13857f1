package live

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fathom-trace/fathom/netstate/nic"
)

// TestDMAFiles reads what debugfs has of mappings, where it has that.
func TestDMAFiles(t *testing.T) {
	dir := t.TempDir()
	if b, n := dmaFiles(dir); b != nil || n != nil {
		t.Errorf("of nothing: %+v, %v", b, n)
	}
	for name, text := range map[string]string{"swiotlb/io_tlb_nslabs": "512\n", "swiotlb/io_tlb_used": "17\n", "swiotlb/io_tlb_used_hiwater": "300\n", "dma-api/error_count": "4\n"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if b, n := dmaFiles(dir); b == nil || *b != (nic.Bounce{Slots: 512, Used: 17, Most: 300}) || n == nil || *n != 4 {
		t.Errorf("%+v, %v", b, n)
	}
}
