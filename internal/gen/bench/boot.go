package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// boots starts kernels in the lab, emulated: from the command line to a command's end in the guest, and off again.
func boots() {
	const times = 3
	fmt.Printf("## A command in another kernel\n\n`fathom lab boot --kernel K -- true`, from start to exit, emulated (TCG): seconds, median (least) of %d.\n\n| kernel | s |\n| --- | --- |\n", times)
	for _, k := range []string{"debian-6.1", "debian-6.12"} {
		var took []float64
		for range times {
			cmd := exec.Command("./fathom", "lab", "boot", "--kernel", k, "--", "true")
			cmd.Env = append(os.Environ(), "FATHOM_ACCEL=tcg")
			start := time.Now()
			if err := cmd.Run(); err != nil {
				fmt.Printf("| %s | %v |\n", k, err)
				took = nil
				break
			}
			took = append(took, time.Since(start).Seconds())
		}
		if slices.Sort(took); len(took) == times {
			fmt.Printf("| %s | %.1f (%.1f) |\n", k, took[times/2], took[0])
		}
	}
	fmt.Println()
}
