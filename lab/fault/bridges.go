package fault

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridge makes two hosts on a bridge, of whose ports set changes something.
func (s *Scene) bridge(set func(h *netlink.Handle, pa, pb netlink.Link, b *end) error) (pa, pb *end, err error) {
	_, pa, pb, b := s.bridged()
	if err := s.up(); err != nil {
		return nil, nil, err
	}
	h, err := s.netlink(pa)
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	x, err := h.LinkByName(pa.dev)
	y, yerr := h.LinkByName(pb.dev)
	if err = errors.Join(err, yerr); err == nil {
		err = set(h, x, y, b)
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	return pa, pb, err
}

// notFlooded says what event tells of a frame that leaves by no port (br_flood, most of the time inlined).
func (s *Scene) notFlooded() {
	s.drops("br_handle_frame_finish", "NOT_SPECIFIED")
	s.dropsSince("6.14", "br_handle_frame_finish", "NO_TX_TARGET")
}

func bridgeIsolated(s *Scene) error {
	pa, pb, err := s.bridge(func(h *netlink.Handle, pa, pb netlink.Link, _ *end) error {
		return errors.Join(h.LinkSetIsolated(pa, true), h.LinkSetIsolated(pb, true))
	})
	if err != nil {
		return err
	}
	s.notFlooded()
	s.blame("bridge", "r", "dev", pb.dev, "field", "isolated")
	s.at("r", pa.dev, pb.dev)
	return nil
}

func bridgeNoFlood(s *Scene) error {
	pa, pb, err := s.bridge(func(h *netlink.Handle, _, pb netlink.Link, _ *end) error { return h.LinkSetFlood(pb, false) })
	if err != nil {
		return err
	}
	s.notFlooded()
	s.blame("bridge", "r", "dev", pb.dev, "field", "flood")
	s.at("r", pa.dev, pb.dev)
	return nil
}

// bridgeWrongPort is a table's entry that sends frames back to where they came from. In which function they are freed depends
// on what was inlined.
func bridgeWrongPort(s *Scene) error {
	pa, _, err := s.bridge(func(h *netlink.Handle, pa, _ netlink.Link, b *end) error {
		return h.NeighSet(&netlink.Neigh{LinkIndex: pa.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: b.mac})
	})
	if err != nil {
		return err
	}
	s.blame("bridge", "r", "dev", pa.dev, "field", "fdb")
	return nil
}
