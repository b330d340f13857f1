package verifier

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParse reads logs as three generations of kernels write them.
func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, log string
		want      Rejection
	}{
		{"6.1", `
reg type unsupported for arg#0 function p0_fentry_vfs_read#12
0: R1=ctx(off=0,imm=0) R10=fp0
; stdin:1:37-59: path(args.file.f_path)
0: (b7) r3 = 64                       ; R3_w=64
1: (85) call bpf_d_path#147
helper call is not allowed in probe
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`, Rejection{Source: "stdin:1:37-59: path(args.file.f_path)", Insn: "1: (85) call bpf_d_path#147", Helper: "bpf_d_path",
			Message: "helper call is not allowed in probe", Kind: HelperHere, Args: []string{}}},
		{"6.12", `
0: R1=ctx() R10=fp0
; stdin:2:3-9: $x = @a[1] @ stdin:2
6: (55) if r0 != 0x0 goto pc+1        ; R0=map_value_or_null(id=1,ks=4,vs=8)
7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`, Rejection{Source: "stdin:2:3-9: $x = @a[1]", Insn: "7: (79) r0 = *(u64 *)(r0 +0)", Message: "R0 invalid mem access 'map_value_or_null'",
			Kind: NullPointer, Args: []string{"map_value_or_null", ""}}},
		{"too complex", `
; stdin:1:3-9: x
12: (b7) r1 = 0
BPF program is too large. Processed 1000001 insn
processed 1000001 insns (limit 1000000) max_states_per_insn 4 total_states 9 peak_states 9 mark_read 1
`, Rejection{Source: "stdin:1:3-9: x", Insn: "12: (b7) r1 = 0", Message: "BPF program is too large. Processed 1000001 insn", Kind: TooLong, Args: []string{"1000001"}}},
		{"7.3", `
0: R1=ctx() R10=fp0
; stdin:1:3-9: x @ stdin:1
0: (b7) r1 = 4096                     ; R1=4096
1: (79) r0 = *(u64 *)(r1 +0)
R1 invalid mem access 'scalar'

Verification failed: Register Type Safety: Invalid dereference

Reason:
  R1 is an integer scalar here, not a pointer
  to memory.

At:
  insn 1
       | ^-- error: invalid dereference of R1 (an integer scalar)
  Instruction context:
      0 | (b7) r1 = 4096
  >>> 1 | (79) r0 = *(u64 *)(r1 +0)

Suggestion:
  Preserve a pointer-valued register.

processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`, Rejection{Source: "stdin:1:3-9: x", Insn: "1: (79) r0 = *(u64 *)(r1 +0)", Message: "R1 invalid mem access 'scalar'", Kind: NotPointer,
			Args: []string{"scalar"}, Reason: "R1 is an integer scalar here, not a pointer to memory.", Suggestion: "Preserve a pointer-valued register."}},
		{"5.10", `
; stdin:1:3-7: func
0: (85) call unknown#173
invalid func unknown#173
`, Rejection{Source: "stdin:1:3-7: func", Insn: "0: (85) call unknown#173", Helper: "bpf_get_func_ip", Message: "invalid func unknown#173", Kind: HelperGone, Args: []string{}}},
		{"words nobody knows", "0: (95) exit\nthe moon is full", Rejection{Insn: "0: (95) exit", Message: "the moon is full"}},
		{"nothing", "", Rejection{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Parse(strings.Split(tc.log, "\n"))
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("; s:1:2-3: x @ s:1\n1: (85) call bpf_d_path#147\nhelper call is not allowed in probe\n")
	f.Add("R0 invalid mem access 'scalar'")
	f.Add("the moon is full\n\nVerification failed: X\n\nReason:\n  It is.\nAt:\n  insn 1\nSuggestion:\n  Wait.\nprocessed 1 insns\n")
	f.Fuzz(func(t *testing.T, s string) {
		r := Parse(strings.Split(s, "\n"))
		if why, _, known := r.Explain(); known && why == "" {
			t.Errorf("%q is known and has no words", r.Message)
		}
	})
}
