package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/jsonl"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// registers shows what the driver dumps of a card's registers.
func (f *nicFlags) registers(r *netlive.Reader, w io.Writer) error {
	if _, err := f.devices(r); err != nil {
		return err
	}
	driver, dump, err := r.Registers(f.dev)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return feature.Unsupported("a dump of the registers of "+f.dev, "ETHTOOL_GREGS", err)
	}
	if err != nil {
		return err
	}
	if !f.json && !netnic.KnowsRegisters(driver) {
		fmt.Fprintf(w, "the layout of %s's dump is not known: words by number, those that are 0 left out\n", driver)
	}
	for _, reg := range netnic.DecodeRegisters(driver, dump) {
		if f.json {
			err = jsonl.Write(w, struct {
				Type string `json:"type"`
				Dev  string `json:"dev"`
				netnic.Register
			}{"register", f.dev, reg})
		} else {
			_, err = fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-14s 0x%08x  %s", reg.Name, reg.Value, strings.Join(reg.Bits, ", ")), " "))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
