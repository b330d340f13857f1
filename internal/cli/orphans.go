package cli

import (
	"fmt"
	"os"

	"github.com/fathom-trace/fathom/bypass/prog"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/internal/polling"
	"github.com/fathom-trace/fathom/internal/remote"
	"github.com/fathom-trace/fathom/lab/exercise"
	"github.com/fathom-trace/fathom/lab/guest/keep"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/record/session"
	"github.com/fathom-trace/fathom/tracefs"
)

// leases is where this user's records are.
func leases() lease.Dir { return lease.Default(lease.User(), os.Getenv) }

// cleaners remove what fathom makes and gives a name, by the kind of its lease.
func cleaners() map[string]lease.Cleaner {
	return map[string]lease.Cleaner{
		netns.Kind: netns.Clean, topology.LeaseKind: topology.Clean, tracefs.LeaseKind: tracefs.CleanInstance,
		keep.LeaseKind: keep.Clean, exercise.LeaseKind: exercise.Clean, session.LeaseKind: session.Clean, tracefs.DynamicKind: tracefs.CleanDynamic,
		tracefs.SyntheticKind: tracefs.CleanSynthetic, tracefs.StackTracerKind: tracefs.CleanStackTracer,
		prog.LeaseKind: prog.Clean, polling.LeaseKind: polling.Clean, remote.LeaseKind: remote.Clean,
	}
}

// sweep removes what processes that died left behind, before a verb makes more. What cannot be removed is said and does
// not stop the verb.
func sweep() {
	gone, err := leases().Clean(cleaners())
	for _, r := range gone {
		fmt.Fprintf(os.Stderr, "fathom: removed %s %s, which process %d left behind\n", r.Kind, r.Name, r.Owner.PID)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "fathom: %v\n", err)
	}
}
