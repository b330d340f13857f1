package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/feature"
)

// withoutTypes are commands that cannot do without the kernel's types (BTF), and what answers part of their question without.
var withoutTypes = []struct{ verb, flag, what, try1, try2 string }{
	{"fathom packet", "", "follow packets", "fathom rank skb:kfree_skb --by reason,location", "fathom record -e 'net:*' -e 'skb:*' --for 5s"},
	{"fathom nic", "latency", "measure the stages of packets", "fathom nic --health", "fathom record -e 'irq:*' -e 'napi:*' -e 'net:*' --for 5s"},
	{"fathom nic", "work", "count what the kernel puts off", "fathom rank workqueue:workqueue_execute_start --by function", "fathom rank irq:softirq_entry --by vec"},
	{"fathom nic", "sockets", "list the sockets of the kernel", "fathom nic --health", ""},
	{"fathom bypass why", "", "watch AF_XDP sockets", "fathom bypass status", ""},
	{"fathom explain struct", "", "read the kernel's types", "fathom explain struct NAME --of DUMP", ""},
}

// typeless tells whoever needs the kernel's types, where there are none, what leads on instead.
func typeless(c *cobra.Command, err error) error {
	var lacks *feature.Error
	if c == nil || !errors.As(err, &lacks) || lacks.Name != "BTF" {
		return err
	}
	var told *diag.Error
	if errors.As(err, &told) && len(told.Try) > 0 {
		return err
	}
	for _, w := range withoutTypes {
		if path := c.CommandPath(); path != w.verb && !strings.HasPrefix(path, w.verb+" ") {
			continue
		}
		if w.flag != "" && !c.Flags().Changed(w.flag) {
			continue
		}
		e := &diag.Error{What: w.what, Err: fmt.Errorf("%w; the kernel needs CONFIG_DEBUG_INFO_BTF", lacks), Try: []string{"fathom doctor", w.try1}, Code: diag.ExitUnsupported}
		if w.try2 != "" {
			e.Try = append(e.Try, w.try2)
		}
		return e
	}
	return err
}
