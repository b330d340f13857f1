package kmod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	const here = "6.12.117+deb12-amd64 SMP preempt mod_unload modversions "
	for _, tt := range []struct {
		module string
		want   []Mismatch
	}{
		{here, nil},
		{"6.7.0-rc3-00292-gf878ded19be6-dirty SMP preempt mod_unload modversions ", []Mismatch{{"release", "6.7.0-rc3-00292-gf878ded19be6-dirty", "6.12.117+deb12-amd64"}}},
		{"6.12.117+deb12-amd64 SMP preempt_rt mod_unload ", []Mismatch{{"preemption", "preempt_rt", "preempt"}, {"module versions", "", "modversions"}}},
		{"6.12.117+deb12-amd64 preempt mod_unload modversions RANDSTRUCT_ab x", []Mismatch{{"SMP", "", "SMP"}, {"randstruct", "RANDSTRUCT_ab", ""}, {"x", "x", ""}}},
		{"", []Mismatch{{"release", "", "6.12.117+deb12-amd64"}, {"SMP", "", "SMP"}, {"preemption", "", "preempt"}, {"module unloading", "", "mod_unload"}, {"module versions", "", "modversions"}}},
	} {
		if d := cmp.Diff(tt.want, Compare(tt.module, here)); d != "" {
			t.Errorf("%q: %s", tt.module, d)
		}
	}
}
