package explain

import (
	"bytes"
	"fmt"
	"time"

	"github.com/fathom-trace/fathom/oops"
	"github.com/fathom-trace/fathom/oops/cause"
)

// Syslog writes an incident as a message of RFC 5424, of facility kern, with what [JSON] writes behind "@cee:", as rsyslog reads
// it. host is the machine that it happened on.
func Syslog(o cause.Oops, host string, now time.Time, src Sources) ([]byte, error) {
	var j bytes.Buffer
	if err := JSON(&j, []cause.Oops{o}, src); err != nil {
		return nil, err
	}
	const kern = 0
	severity := 2 // critical
	switch o.Report.Kind {
	case oops.Warning, oops.HungTask, oops.OOM, oops.RCUStall:
		severity = 4
	case oops.Panic:
		severity = 0
	}
	if host == "" {
		host = "-"
	}
	return fmt.Appendf(nil, "<%d>1 %s %s fathom - oops - @cee:%s", kern*8+severity, now.UTC().Format(time.RFC3339), host, bytes.TrimSpace(j.Bytes())), nil
}
