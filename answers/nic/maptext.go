package nic

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nic"
)

// WriteText writes the map for people. all shows every feature, not only those that change what is seen.
func (m *Map) WriteText(w io.Writer, all bool) error {
	var b strings.Builder
	m.head(&b)
	m.settings(&b)
	if all {
		for _, f := range m.Features {
			fmt.Fprintf(&b, "  feature   %s: %s\n", f.Name, onOff(f))
		}
	}
	rows := m.Rows
	if len(m.Vectors) == 0 && !slices.ContainsFunc(m.Queues, func(q nic.Queue) bool { return q.NAPI != 0 || q.RPS+q.XPS != "" || len(q.XSK) > 0 }) {
		var qs []*nic.Queue
		for i := range m.Queues {
			qs = append(qs, &m.Queues[i])
		}
		fmt.Fprintf(&b, "  queues    %s, no interrupt and nothing set\n", names(qs))
		rows = nil
	}
	t := newTable(0, 1, 5)
	t.row("vec", "irq", "handler", "wanted", "CPU", "interrupts", "queues", "NAPI", "RPS", "XPS", "AF_XDP", "known by")
	for i := range rows {
		t.row(rows[i].cells()...)
	}
	if len(rows) > 0 {
		b.WriteString("\n")
		t.write(&b, "  ")
	}
	if n := len(m.NAPIs); n > 0 {
		m.napis(&b)
	}
	for _, f := range m.Findings {
		fmt.Fprintf(&b, "  note      %s\n", f)
	}
	for _, x := range m.Missing {
		fmt.Fprintf(&b, "  missing   %s: %s\n", x.What, x.Why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func onOff(f nic.Feature) string {
	s := "off"
	if f.On {
		s = "on"
	}
	if f.Fixed {
		s += " [fixed]"
	}
	return s
}

func (m *Map) head(b *strings.Builder) {
	words := []string{}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch {
	case m.Driver != "" && m.Driver != m.Kind:
		add("driver %s", m.Driver)
	case m.Kind != "":
		add("%s, a device of software", m.Kind)
	}
	if m.PCI != "" {
		add("PCI %s", m.PCI)
	} else if m.Bus != "" {
		add("on %s", m.Bus)
	}
	if m.NUMA >= 0 {
		add("NUMA node %d", m.NUMA)
	}
	if m.Up {
		add("up")
	} else {
		add("down")
	}
	add("mtu %d", m.MTU)
	if m.Firmware != "" && m.Firmware != "N/A" {
		add("firmware %s", m.Firmware)
	}
	fmt.Fprintf(b, "%s  %s\n", m.Name, strings.Join(words, ", "))
}

// settings are the lines between the head and the table; what a device has not got has no line.
func (m *Map) settings(b *strings.Builder) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	if c := m.Channels; c != nil {
		var parts []string
		for _, p := range []struct {
			name    string
			n, most uint32
		}{{"combined", c.Combined, c.MaxCombined}, {"rx", c.RX, c.MaxRX}, {"tx", c.TX, c.MaxTX}, {"other", c.Other, c.MaxOther}} {
			if p.most > 0 {
				parts = append(parts, fmt.Sprintf("%s %d of %d", p.name, p.n, p.most))
			}
		}
		line("channels", "%s", strings.Join(parts, ", "))
	}
	if r := m.Rings; r != nil && r.MaxRX+r.MaxTX > 0 {
		line("rings", "rx %d of %d descriptors, tx %d of %d", r.RX, r.MaxRX, r.TX, r.MaxTX)
	}
	var co []string
	for _, s := range m.Coalesce {
		if s.Value != 0 {
			co = append(co, fmt.Sprintf("%s %d", s.Name, s.Value))
		}
	}
	if len(co) > 0 {
		line("coalesce", "%s", strings.Join(co, ", "))
	}
	line("polling", "%s", m.pollingWords())
	if m.Clock != nil && m.PCI != "" {
		if *m.Clock < 0 {
			line("clock", "none: the card does not stamp packets, and when one reached it is not known")
		} else {
			line("clock", "/dev/ptp%d: the card can stamp packets (SO_TIMESTAMPING)", *m.Clock)
		}
	}
	for _, p := range m.XDP {
		line("XDP", "%s", progWords(p))
	}
	if len(m.RDMA) > 0 {
		line("RDMA", "%s", strings.Join(m.RDMA, ", "))
	}
	m.offloads(b)
}

func progWords(p netstate.Prog) string {
	s := fmt.Sprintf("program %d", p.ID)
	if p.Name != "" {
		s += " " + p.Name
	}
	if p.Mode != "" {
		s += ", " + p.Mode
	}
	return s
}

func (m *Map) pollingWords() string {
	p := m.Polling
	s := "started by interrupts, in softirq"
	if p.Threaded {
		s = "started by interrupts, in threads of its own (threaded=1)"
	}
	if p.DeferIRQs > 0 || p.GROTimeout > 0 {
		s += fmt.Sprintf("; interrupts stay off for %d empty polls, %d ns apart (napi_defer_hard_irqs, gro_flush_timeout)", p.DeferIRQs, p.GROTimeout)
	}
	return s
}

// effects say what an offload that is on changes for who watches packets on this machine.
var effects = []struct{ feature, short, effect string }{
	{"rx-gro", "gro", "packets of a stream are merged before netif_receive_skb: one event may be many packets"},
	{"rx-gro-hw", "gro-hw", "the card merges packets of a stream: drivers and tracers see the whole"},
	{"rx-lro", "lro", "the card merges packets and forgets their sizes: do not forward them"},
	{"tx-tcp-segmentation", "tso", "TCP is cut to packets by the card: what is seen being sent is up to 64 KB large"},
	{"tx-udp-segmentation", "uso", "UDP_SEGMENT is cut by the card: one event is many datagrams"},
	{"tx-checksum-ip-generic", "tx-csum", "checksums are filled in by the card: captures of what is sent show them wrong"},
	{"tx-checksum-ipv4", "tx-csum-ipv4", "checksums are filled in by the card: captures of what is sent show them wrong"},
	{"rx-vlan-hw-parse", "rxvlan", "VLAN tags are taken out by the card: they are in the skb, not in its data"},
	{"rx-ntuple-filter", "ntuple", "filters in the card may drop or steer packets that no event tells of"},
	{"hw-tc-offload", "hw-tc", "flows that the card forwards by itself are seen by no tracer"},
	{"tls-hw-rx-offload", "tls-rx", "the card decrypts TLS records: the stack sees plain text"},
	{"tls-hw-tx-offload", "tls-tx", "the card encrypts TLS records: captures of what is sent show plain text"},
	{"tls-hw-record", "tls-record", "the card does all of TLS, and TCP with it: no packet of such a connection is seen"},
	{"esp-hw-offload", "esp", "the card encrypts IPsec: captures of what is sent show it in the clear"},
}

func (m *Map) offloads(b *strings.Builder) {
	if len(m.Features) == 0 {
		return
	}
	on := map[string]bool{}
	n := 0
	for _, f := range m.Features {
		on[f.Name] = f.On
		if f.On {
			n++
		}
	}
	fmt.Fprintf(b, "  offloads  %d of %d features are on (all with -v); what they change for who watches:\n", n, len(m.Features))
	for _, e := range effects {
		if on[e.feature] {
			fmt.Fprintf(b, "            %-12s %s\n", e.short, e.effect)
		}
	}
}

// cells are a row of the table.
func (r *Row) cells() []string {
	c := make([]string, 12)
	if v := r.Vector; v != nil {
		if v.Index >= 0 {
			c[0] = strconv.Itoa(v.Index)
		}
		c[1], c[2], c[3], c[4] = strconv.Itoa(v.IRQ), strings.Join(v.Names, ", "), v.Wanted, v.Effective
		c[5] = strconv.FormatUint(v.Total(), 10)
		if c[2] == "" {
			c[2] = "(none)"
		}
	}
	c[6] = names(r.Queues)
	var ids []string
	for _, id := range r.NAPIs {
		ids = append(ids, strconv.FormatUint(uint64(id), 10))
	}
	c[7], c[11] = strings.Join(ids, " "), r.By
	join := func(at int, s string) {
		if s != "" && !strings.Contains(c[at], s) {
			c[at] = strings.TrimPrefix(c[at]+" "+s, " ")
		}
	}
	for _, q := range r.Queues {
		join(8, q.RPS)
		join(9, q.XPS)
		for _, x := range q.XSK {
			join(10, strings.TrimPrefix(x.Owner, "["))
		}
	}
	return c
}

// napis lists the instances with what netlink says of each, where that is more than an ID.
func (m *Map) napis(b *strings.Builder) {
	for _, n := range m.NAPIs {
		var words []string
		if n.PID != 0 {
			words = append(words, fmt.Sprintf("polled by thread %d", n.PID))
		}
		if n.DeferIRQs != nil && *n.DeferIRQs != uint32(m.Polling.DeferIRQs) {
			words = append(words, fmt.Sprintf("interrupts deferred for %d polls", *n.DeferIRQs))
		}
		if n.GROTimeout != nil && *n.GROTimeout != m.Polling.GROTimeout {
			words = append(words, fmt.Sprintf("gro_flush_timeout %d ns", *n.GROTimeout))
		}
		if len(words) > 0 {
			fmt.Fprintf(b, "  NAPI %d   %s\n", n.ID, strings.Join(words, ", "))
		}
	}
}

// WriteJSON writes the map as JSON lines: one of type "nic", then those of type "vector", "queue", "napi", "feature", "note"
// and "missing", each with the name of the device as "dev".
func (m *Map) WriteJSON(w io.Writer) error {
	e := jsonl.NewEncoder(w)
	head := *m.Device
	head.Vectors, head.Queues, head.NAPIs, head.Features, head.Missing = nil, nil, nil, nil, nil
	lines := []any{struct {
		Type string `json:"type"`
		*nic.Device
	}{"nic", &head}}
	for _, r := range m.Rows {
		if r.Vector != nil {
			lines = append(lines, struct {
				Type string `json:"type"`
				Dev  string `json:"dev"`
				*nic.Vector
				Total  uint64   `json:"interrupts"`
				Queues []string `json:"queues"`
				NAPIs  []uint32 `json:"napis"`
				By     string   `json:"known_by"`
			}{"vector", m.Name, r.Vector, r.Vector.Total(), strings.Fields(names(r.Queues)), append([]uint32{}, r.NAPIs...), r.By})
		}
	}
	for i := range m.Queues {
		lines = append(lines, struct {
			Type string `json:"type"`
			Dev  string `json:"dev"`
			*nic.Queue
		}{"queue", m.Name, &m.Queues[i]})
	}
	for i := range m.NAPIs {
		lines = append(lines, struct {
			Type string `json:"type"`
			Dev  string `json:"dev"`
			*nic.NAPI
		}{"napi", m.Name, &m.NAPIs[i]})
	}
	for i := range m.Features {
		lines = append(lines, struct {
			Type string `json:"type"`
			Dev  string `json:"dev"`
			*nic.Feature
		}{"feature", m.Name, &m.Features[i]})
	}
	for _, f := range m.Findings {
		lines = append(lines, map[string]string{"type": "note", "dev": m.Name, "text": f})
	}
	for _, x := range m.Missing {
		lines = append(lines, map[string]string{"type": "missing", "dev": m.Name, "what": x.What, "why": x.Why})
	}
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			return err
		}
	}
	return nil
}
