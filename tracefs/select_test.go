package tracefs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/feature"
)

func TestSelect(t *testing.T) {
	dir := t.TempDir()
	for _, e := range []string{"net/netif_receive_skb", "net/netif_rx", "skb/kfree_skb", "sched/sched_switch", "sched/sched_wakeup"} {
		if err := os.MkdirAll(filepath.Join(dir, "events", e), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "events", e, "enable"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var list []byte
	for _, e := range []string{"net:netif_receive_skb", "net:netif_rx", "skb:kfree_skb", "sched:sched_switch", "sched:sched_wakeup"} {
		list = append(list, e+"\n"...)
	}
	if err := os.WriteFile(filepath.Join(dir, "available_events"), list, 0o644); err != nil {
		t.Fatal(err)
	}
	f := FS{Root: dir}
	for pattern, want := range map[string][]string{
		"net:netif_rx":       {"netif_rx"},
		"net/netif_*":        {"netif_receive_skb", "netif_rx"},
		"sched":              {"sched_switch", "sched_wakeup"},
		"sched_switch":       {"sched_switch"},
		"skb_kfree":          {"kfree_skb"},
		"net_if_receive_skb": {"netif_receive_skb"},
	} {
		got, err := f.Select(pattern)
		var names []string
		for _, e := range got {
			names = append(names, e.Name)
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: %v %v, want %v", pattern, names, err, want)
		}
	}
	_, err := f.Select("net:netif_recieve_skb")
	var none *NoEventError
	if !errors.As(err, &none) || len(none.Near) == 0 || none.Near[0] != "net:netif_receive_skb" {
		t.Errorf("%v", err)
	}
	if _, err := f.Select("["); err == nil {
		t.Error("a bad pattern is taken")
	}
	for _, pattern := range []string{"user_events", "user_events:*", "user_events:shop_*"} {
		if _, err := f.Select(pattern); !errors.Is(err, feature.ErrUnsupported) || !strings.Contains(err.Error(), "user_events_data") {
			t.Errorf("%s of a kernel without: %v", pattern, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "user_events_data"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Select("user_events:*"); !errors.As(err, &none) { // there may be some later
		t.Errorf("before a program has made any: %v", err)
	}
}
