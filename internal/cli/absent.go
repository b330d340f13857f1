package cli

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/fathom-trace/fathom/internal/diag"
)

// noNamespace tells whoever names a network namespace that is not there where they all stand.
func noNamespace(err error) error {
	var file *fs.PathError
	if !errors.As(err, &file) || file.Op != "open network namespace" || !errors.Is(file, fs.ErrNotExist) {
		return err
	}
	e := &diag.Error{What: file.Op + " " + filepath.Base(file.Path), Because: "there is no " + file.Path, Try: []string{"fathom lab list"}, Code: diag.ExitNoInput, Err: err}
	if told := (*diag.Error)(nil); errors.As(err, &told) {
		if len(told.Try) > 0 {
			return err
		}
		e.What = told.What
	}
	return e
}
