package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/packet/why"
	"github.com/fathom-trace/fathom/netstate/live"
)

// packetWhyCommand is packet why.
func packetWhyCommand() *cobra.Command {
	var json bool
	c := &cobra.Command{
		Use:   "why [flags] dev NAME [netns NAME] [to ADDRESS] [from ADDRESS]",
		Short: "Say what a device would do now with ARP requests, packets and broadcasts that arrive on it, and why",
		Long: `Say what a network device, as it is now, would do with an ARP request, a packet and a broadcast that arrive on it: taken,
answered, delivered, dropped, at which step of the kernel's way, and why; and what would change that. Nothing is sent. The
address is the device's first, or the one behind to; the sender somebody in its network, or the one behind from. IPv4.

Examples:
  fathom packet why dev eth0
  fathom packet why dev eth0 netns web to 10.0.0.1 from 192.0.2.7
  fathom packet why dev wlan0 -j`,
		RunE: func(c *cobra.Command, args []string) error {
			dev, netns, q, err := parseWhy(args)
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			r, err := live.Open(netns)
			if err != nil {
				return err
			}
			defer r.Close()
			st := r.Read(live.Links | live.Addrs | live.Routes | live.Rules | live.Sysctls | live.NFT | live.TC)
			for _, m := range st.Missing {
				fmt.Fprintf(os.Stderr, "fathom: not looked at: %s (%s)\n", m.What, m.Err)
			}
			a, err := why.Explain(st, dev, q)
			if err != nil {
				return err
			}
			if json {
				return a.WriteJSON(c.OutOrStdout())
			}
			return a.WriteText(c.OutOrStdout())
		},
	}
	c.Flags().BoolVarP(&json, "json", "j", false, "one JSON object")
	return c
}

// parseWhy reads pairs of words.
func parseWhy(args []string) (dev, netns string, q why.Question, err error) {
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			return "", "", q, fmt.Errorf("%s: give a value behind it", args[i])
		}
		word, v := args[i], args[i+1]
		switch word {
		case "dev":
			dev = v
		case "netns":
			netns = v
		case "to":
			q.Dst, err = netip.ParseAddr(v)
		case "from":
			q.Src, err = netip.ParseAddr(v)
		default:
			err = fmt.Errorf("no word %q: dev, netns, to, from", word)
		}
		if err != nil {
			return "", "", q, err
		}
	}
	if dev == "" {
		return "", "", q, errors.New("give a device: dev NAME")
	}
	return dev, netns, q, nil
}
