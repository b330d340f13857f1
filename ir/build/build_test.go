package build

import (
	"slices"
	"testing"

	"github.com/fathom-trace/fathom/lang/check"
)

// atCheck are functions whose value the checker knows: they never get here.
var atCheck = []string{"has_cpid", "probetype", "config", "sizeof", "offsetof", "typeinfo", "is_ptr", "is_str", "is_array", "is_integer",
	"is_unsigned_integer", "is_literal", "is_scalar", "default_str_length", "getopt", "kfunc_exist", "kfunc_allowed", "kaddr", "strcap"}

// TestFunctions holds the two tables of functions against each other.
func TestFunctions(t *testing.T) {
	have, aggs := functions(), aggregations()
	for f := range check.Funcs() {
		known := have[f.Name] != nil || aggs[f.Name] != nil
		if listed := slices.Contains(atCheck, f.Name); known == listed {
			t.Errorf("%s: has code %v, is listed as having none %v", f.Name, known, listed)
		}
	}
}
