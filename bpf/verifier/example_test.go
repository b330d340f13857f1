package verifier_test

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/bpf/verifier"
)

func Example() {
	log := `7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0`
	r := verifier.Parse(strings.Split(log, "\n"))
	why, fix, _ := r.Explain()
	fmt.Println(r.Kind)
	fmt.Println(why)
	fmt.Println(fix)
	// Output:
	// maybe-null
	// a pointer that may be NULL is used without having been looked at
	// if ($p != 0) { … } around its use
}
