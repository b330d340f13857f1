package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

var clockOffset = regexp.MustCompile(`(?m)^\toffset_s = (-?\d+);\n\toffset = (\d+);$`)

// Shift moves the time of day of all recordings below a folder, which fathom made: one that was made on another machine is told
// in the time of this one. by is in ns.
func Shift(dir string, by int64) error {
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != metaFile {
			return err
		}
		n++
		return shift(filepath.Dir(filepath.Dir(path)), path, by)
	})
	if err == nil && n == 0 {
		err = errors.New("there is no recording")
	}
	if err != nil {
		return fmt.Errorf("set the clock of %s: %w", dir, err)
	}
	return nil
}

func shift(dir, meta string, by int64) error {
	b, err := os.ReadFile(meta)
	if err != nil {
		return err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	var real int64
	if err := json.Unmarshal(m["to_real"], &real); err != nil {
		return fmt.Errorf("%s: to_real: %w", meta, err)
	}
	m["to_real"] = strconv.AppendInt(nil, real+by, 10)
	if b, err = json.Marshal(m); err != nil {
		return err
	}
	name := filepath.Join(dir, "metadata")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	at := clockOffset.FindSubmatchIndex(text)
	if at == nil {
		return fmt.Errorf("%s: no clock", name)
	}
	sec, err := strconv.ParseInt(string(text[at[2]:at[3]]), 10, 64)
	if err != nil {
		return err
	}
	ns, err := strconv.ParseInt(string(text[at[4]:at[5]]), 10, 64)
	if err != nil {
		return err
	}
	ns += sec*1e9 + by
	sec, ns = ns/1e9, ns%1e9
	if ns < 0 {
		sec, ns = sec-1, ns+1e9
	}
	now := fmt.Appendf(nil, "%s\toffset_s = %d;\n\toffset = %d;%s", text[:at[0]], sec, ns, text[at[1]:])
	return errors.Join(os.WriteFile(meta, b, 0o644), os.WriteFile(name, now, 0o644))
}
