// Package procnet reads the texts of /proc/net: counters, multicast groups, and sockets where sock_diag is missing.
//
// Counters have one flat name each: "Ip.InAddrErrors", "TcpExt.ListenOverflows", "Ip6.InDiscards", "xfrm.XfrmInNoPols",
// "rt_cache.in_martian_dst", "nf_conntrack.drop", "softnet.dropped", "link.eth0.rx_dropped". What a file has for each CPU is
// summed. Lines that are not understood are passed over: kernels add to these files.
package procnet

import (
	"bytes"
	"strconv"
	"strings"
)

// File is a file of counters below /proc/net, and what reads it.
type File struct {
	Name string // "stat/rt_cache"
	read func(into map[string]uint64, text []byte)
}

// Files are the files with counters.
func Files() []File {
	perCPU := func(prefix string) func(map[string]uint64, []byte) {
		return func(into map[string]uint64, text []byte) { table(into, prefix, text) }
	}
	return []File{
		{"snmp", pairs}, {"netstat", pairs}, {"snmp6", snmp6}, {"xfrm_stat", xfrm}, {"softnet_stat", softnet}, {"dev", dev},
		{"sctp/snmp", sctp},
		{"stat/rt_cache", perCPU("rt_cache")}, {"stat/arp_cache", perCPU("arp_cache")}, {"stat/ndisc_cache", perCPU("ndisc_cache")},
		{"stat/nf_conntrack", perCPU("nf_conntrack")}, {"stat/synproxy", perCPU("synproxy")},
	}
}

// Read adds the counters in the text of a file.
func (f File) Read(into map[string]uint64, text []byte) { f.read(into, text) }

// lines calls f with the words of each line.
func lines(text []byte, f func(w []string)) {
	for line := range bytes.Lines(text) {
		if w := strings.Fields(string(line)); len(w) > 0 {
			f(w)
		}
	}
}

// pairs reads lines of names, each followed by one of numbers: snmp, netstat (net/ipv4/proc.c).
func pairs(into map[string]uint64, text []byte) {
	var names []string
	lines(text, func(w []string) {
		if names == nil || names[0] != w[0] {
			names = w
			return
		}
		prefix := strings.TrimSuffix(w[0], ":") + "."
		for i := 1; i < min(len(w), len(names)); i++ {
			if n, err := strconv.ParseInt(w[i], 10, 64); err == nil { // Tcp.MaxConn is −1
				into[prefix+names[i]] = uint64(n)
			} else if n, err := strconv.ParseUint(w[i], 10, 64); err == nil {
				into[prefix+names[i]] = n
			}
		}
		names = nil
	})
}

// named reads lines of a name and a number.
func named(into map[string]uint64, text []byte, rename func(string) string) {
	lines(text, func(w []string) {
		if len(w) != 2 {
			return
		}
		if n, err := strconv.ParseUint(w[1], 10, 64); err == nil {
			into[rename(w[0])] = n
		}
	})
}

// snmp6 has the protocol in front of each name, without a mark between them.
func snmp6(into map[string]uint64, text []byte) {
	named(into, text, func(s string) string {
		for _, p := range []string{"Icmp6", "UdpLite6", "Udp6", "Ip6"} {
			if rest, ok := strings.CutPrefix(s, p); ok {
				return p + "." + rest
			}
		}
		return s
	})
}

func xfrm(into map[string]uint64, text []byte) {
	named(into, text, func(s string) string { return "xfrm." + s })
}

func sctp(into map[string]uint64, text []byte) {
	named(into, text, func(s string) string { return "Sctp." + strings.TrimPrefix(s, "Sctp") })
}

// table reads a line of names and one of hexadecimal numbers for each CPU. The column "entries" is the size of a table and
// the same in each line: it is no counter.
func table(into map[string]uint64, prefix string, text []byte) {
	var names []string
	lines(text, func(w []string) {
		if names == nil {
			names = w
			return
		}
		for i := range min(len(w), len(names)) {
			if n, err := strconv.ParseUint(w[i], 16, 64); err == nil && names[i] != "entries" {
				into[prefix+"."+names[i]] += n
			}
		}
	})
}

// softnet reads softnet_stat (net/core/net-procfs.c): a line for each CPU, hexadecimal, without names.
func softnet(into map[string]uint64, text []byte) {
	columns := map[int]string{0: "processed", 1: "dropped", 2: "time_squeeze", 9: "received_rps", 10: "flow_limit"}
	lines(text, func(w []string) {
		for i, name := range columns {
			if i < len(w) {
				n, _ := strconv.ParseUint(w[i], 16, 32)
				into["softnet."+name] += n
			}
		}
	})
}

var devColumns = [...]string{
	"rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "rx_fifo", "rx_frame", "rx_compressed", "rx_multicast",
	"tx_bytes", "tx_packets", "tx_errors", "tx_dropped", "tx_fifo", "tx_collisions", "tx_carrier", "tx_compressed",
}

// dev reads net/dev. A name may hold a colon: the last one of the line ends it.
func dev(into map[string]uint64, text []byte) {
	for line := range bytes.Lines(text) {
		i := bytes.LastIndexByte(line, ':')
		if i < 0 {
			continue
		}
		name := strings.TrimSpace(string(line[:i]))
		for j, w := range strings.Fields(string(line[i+1:])) {
			if n, err := strconv.ParseUint(w, 10, 64); err == nil && j < len(devColumns) {
				into["link."+name+"."+devColumns[j]] = n
			}
		}
	}
}
