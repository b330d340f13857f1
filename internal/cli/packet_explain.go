package cli

import (
	"bufio"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/diag"
)

func packetExplainCommand() *cobra.Command {
	f := &packetFlags{mark: -1}
	c := &cobra.Command{
		Use:   "explain [flags] FILE",
		Short: "Tell again what packet -o saved, on any machine",
		Long: `Tell again what happened to the packets that fathom packet -o saved. The file has the state of the machine then; no
privilege is needed.

Examples:
  fathom packet --for 10s -o seen.json udp port 53
  fathom packet explain seen.json
  fathom packet explain -j -w seen.pcapng seen.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			rec, err := recording(args[0])
			if err != nil {
				return err
			}
			return f.tell(rec, f.style())
		},
	}
	fl := c.Flags()
	f.answerFlags(fl)
	f.latencyFlag(fl)
	return c
}

// recording reads what packet -o saved.
func recording(name string) (*packet.Recording, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, diag.NoInput("read a recording of packets", err)
	}
	defer file.Close()
	rec, err := packet.Load(bufio.NewReader(file))
	if err != nil {
		return nil, diag.BadInput("read "+name, err)
	}
	return rec, nil
}

func packetDiffCommand() *cobra.Command {
	var flows [2]string
	c := &cobra.Command{
		Use:   "diff [flags] GOOD BAD",
		Short: "Compare the way of a good flow with that of a bad one",
		Long: `Compare the way of a good flow with that of a bad one, both saved with fathom packet -o: where they part, and why the bad
one ended. The files may be of different machines, and the same.

Examples:
  fathom packet -o good.json --for 5s tcp port 443
  fathom packet diff good.json bad.json
  fathom packet diff --good 10.0.0.2:80 --bad 10.0.0.3:80 seen.json seen.json`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			var recs [2]*packet.Recording
			var picked [2]*packet.Flow
			for i, name := range args {
				var err error
				if recs[i], err = recording(name); err != nil {
					return err
				}
				if picked[i] = recs[i].Pick(flows[i]); picked[i] == nil {
					return diag.BadInput("compare "+name, fmt.Errorf("it has no flow %q", flows[i]))
				}
			}
			return packet.Diff(os.Stdout, recs[0], recs[1], picked[0], picked[1])
		},
	}
	c.Flags().StringVar(&flows[0], "good", "", "the flow of GOOD whose description has this `TEXT` (default the first)")
	c.Flags().StringVar(&flows[1], "bad", "", "the flow of BAD whose description has this `TEXT` (default the first)")
	return c
}
