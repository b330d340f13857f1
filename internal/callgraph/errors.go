package callgraph

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/fathom-trace/fathom/internal/diag"
)

// unsupported is what is said when no engine can be used.
func unsupported(fn string, errs []error) error {
	e := &diag.Error{What: "trace the calls below " + fn, Code: diag.ExitUnsupported, Err: errors.Join(errs...)}
	if errors.Is(e.Err, fs.ErrPermission) {
		e.Code = diag.ExitPermission
	}
	var because []string
	for _, err := range errs {
		because = append(because, err.Error())
	}
	e.Because = strings.Join(because, "; ")
	e.Try = []string{"fathom doctor", "fathom lab boot -- fathom trace graph " + fn + " -- CMD"}
	return e
}
