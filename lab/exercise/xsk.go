package exercise

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/lab/attach"
)

// actXSK attaches an XDP program to a device that gives packets to the AF_XDP socket of their queue, waits until packets
// come, and binds a socket to a queue at which none do: DEV QUEUES FILE. It writes "QUEUE-OF-PACKETS QUEUE-BOUND" to FILE.
func actXSK(args []string) error {
	queues, err := strconv.Atoi(args[1])
	if err != nil || queues < 2 {
		return fmt.Errorf("queues %q", args[1])
	}
	a, socks, seen, err := attach.Redirect(args[0], queues, true)
	if err != nil {
		return err
	}
	defer a.Close()
	come, err := busiest(seen, queues)
	if err != nil {
		return err
	}
	bound := (come + 1) % queues
	s, err := attach.OpenSock(args[0], bound)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := socks.Put(uint32(bound), uint32(s.FD)); err != nil {
		return err
	}
	if err := os.WriteFile(args[2], fmt.Appendf(nil, "%d %d\n", come, bound), 0o600); err != nil {
		return err
	}
	select {}
}

// busiest waits until a queue has seen some packets more than the stray ones of a network that comes up.
func busiest(seen *ebpf.Map, queues int) (int, error) {
	const enough = 20
	for range 200 {
		for q := range queues {
			var n uint64
			if err := seen.Lookup(uint32(q), &n); err != nil {
				return 0, err
			}
			if n >= enough {
				return q, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, errors.New("no packets come")
}
