package nic

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// Register is a register of a card, as its driver dumped it (ETHTOOL_GREGS).
type Register struct {
	Word  int      `json:"word"` // place in the dump
	Name  string   `json:"name"` // as the card's datasheet calls it; "word 12" where it is not known here
	Value uint32   `json:"value"`
	Bits  []string `json:"bits,omitempty"` // what its value means
}

// bitField is a part of a register.
type bitField struct {
	shift, width int
	name         string
	values       []string // by value; nil: the number, or of one bit only its name if it is set
}

// words places registers in a dump: names one behind the other from a word on. A name with "(0-3)" is four of them.
type words struct {
	from  int
	names string
}

// e1000eWords is e1000_get_regs of drivers/net/ethernet/intel/e1000e/ethtool.c.
var e1000eWords = []words{{0, "CTRL STATUS RCTL RDLEN(0) RDH(0) RDT(0) RDTR TCTL TDLEN(0) TDH(0) TDT(0) TIDV phy_type"}}

// igbWords is igb_get_regs of drivers/net/ethernet/intel/igb/igb_ethtool.c. What is small letters are statistics.
var igbWords = []words{
	{0, "CTRL STATUS CTRL_EXT MDIC SCTL CONNSW VET LEDCTL PBA PBS FRTIMER TCPTIMER EECD EICR EICS EIMS EIMC EIAC EIAM ICR ICS IMS IMC IAC IAM IMIRVP"},
	{26, "FCAL FCAH FCTTV FCRTL FCRTH FCRTV RCTL RXCSUM RLPML RFCTL MRQC VT_CTL TCTL TCTL_EXT TIPG DTXCTL WUC WUFC WUS IPAV WUPL"},
	{47, "PCS_CFG0 PCS_LCTL PCS_LSTAT PCS_ANADV PCS_LPAB PCS_NPTX PCS_LPABNP"},
	{54, "crcerrs algnerrc symerrs rxerrc mpc scc ecol mcc latecol colc dc tncrs sec htdpmc rlec xonrxc xontxc xoffrxc xofftxc fcruc"},
	{74, "prc64 prc127 prc255 prc511 prc1023 prc1522 gprc bprc mprc gptc"}, {84, "gorc"}, {86, "gotc"},
	{88, "rnbc ruc rfc roc rjc mgprc mgpdc mgptc"}, {96, "tor"}, {98, "tot"}, {100, "tpr tpt ptc64 ptc127 ptc255 ptc511 ptc1023 ptc1522 mptc bptc tsctc iac rpthc hgptc"},
	{114, "hgorc"}, {116, "hgotc"}, {118, "lenerrs scvpc hrmpc"},
	{121, "SRRCTL(0-3) PSRTYPE(0-3) RDBAL(0-3) RDBAH(0-3) RDLEN(0-3) RDH(0-3) RDT(0-3) RXDCTL(0-3) EITR(0-9) IMIR(0-7) IMIREXT(0-7) RAL(0-15) RAH(0-15)"},
	{211, "TDBAL(0-3) TDBAH(0-3) TDLEN(0-3) TDH(0-3) TDT(0-3) TXDCTL(0-3) TDWBAL(0-3) TDWBAH(0-3) DCA_TXCTRL(0-3)"},
}

// fields are of the registers that all of this family have (82574 and 82576 datasheets, Driver Programming Interface).
var fields = map[string][]bitField{
	"CTRL": {
		{0, 1, "full duplex", nil}, {2, 1, "bus mastering disabled", nil}, {3, 1, "link reset", nil}, {5, 1, "speed detection", nil}, {6, 1, "set link up", nil}, {7, 1, "loss of signal inverted", nil},
		{8, 2, "speed", []string{"10 Mb/s", "100 Mb/s", "1000 Mb/s", "reserved"}}, {11, 1, "speed forced", nil}, {12, 1, "duplex forced", nil}, {26, 1, "reset", nil},
		{27, 1, "receive flow control", nil}, {28, 1, "transmit flow control", nil}, {30, 1, "VLAN tags handled", nil}, {31, 1, "PHY reset", nil},
	},
	"STATUS": {
		{0, 1, "full duplex", nil}, {1, 1, "link up", nil}, {2, 2, "function", nil}, {4, 1, "transmission paused", nil}, {6, 2, "speed", []string{"10 Mb/s", "100 Mb/s", "1000 Mb/s", "1000 Mb/s"}},
		{19, 1, "bus mastering on", nil},
	},
	"RCTL": {
		{1, 1, "receiving", nil}, {2, 1, "bad packets kept", nil}, {3, 1, "all unicast", nil}, {4, 1, "all multicast", nil}, {5, 1, "long packets", nil}, {6, 2, "loopback", []string{"", "reserved", "reserved", "PHY"}},
		{15, 1, "broadcast", nil}, {16, 2, "buffer size", []string{"2048", "1024", "512", "256"}}, {18, 1, "VLAN filter", nil}, {22, 1, "pause frames dropped", nil}, {23, 1, "MAC control frames passed", nil},
		{25, 1, "buffer size times 16", nil}, {26, 1, "CRC stripped", nil},
	},
	"TCTL": {{1, 1, "sending", nil}, {3, 1, "short packets padded", nil}, {4, 8, "collision threshold", nil}, {12, 10, "collision distance", nil}, {22, 1, "XOFF by software", nil}, {24, 1, "retransmit on late collision", nil}},
}

// layouts are by driver.
var layouts = map[string][]words{"e1000e": e1000eWords, "igb": igbWords}

// KnowsRegisters says if the dump of a driver is known here.
func KnowsRegisters(driver string) bool { return layouts[driver] != nil }

// DecodeRegisters names the words of a driver's dump. Of a driver that is not known all are numbered.
func DecodeRegisters(driver string, dump []byte) (out []Register) {
	names := map[int]string{}
	for _, w := range layouts[driver] {
		i := w.from
		for _, n := range strings.Fields(w.names) {
			for _, one := range each(n) {
				names[i] = one
				i++
			}
		}
	}
	for i := 0; 4*i+4 <= len(dump); i++ {
		r := Register{Word: i, Name: names[i], Value: binary.LittleEndian.Uint32(dump[4*i:])}
		if r.Name == "" {
			if r.Value == 0 {
				continue // behind what the driver filled in, or between
			}
			r.Name = "word " + strconv.Itoa(i)
		}
		r.Bits = describe(fields[r.Name], r.Value)
		out = append(out, r)
	}
	return out
}

// each writes out "RDH(0-3)" as four names.
func each(name string) []string {
	base, span, ok := strings.Cut(name, "(0-")
	last, err := strconv.Atoi(strings.TrimSuffix(span, ")"))
	if !ok || err != nil {
		return []string{name}
	}
	var out []string
	for i := range last + 1 {
		out = append(out, fmt.Sprintf("%s(%d)", base, i))
	}
	return out
}

func describe(fs []bitField, v uint32) (out []string) {
	for _, f := range fs {
		n := v >> f.shift & (1<<f.width - 1)
		switch {
		case f.values != nil && f.values[n] != "":
			out = append(out, f.name+" "+f.values[n])
		case f.values == nil && f.width == 1 && n != 0:
			out = append(out, f.name)
		case f.values == nil && f.width > 1:
			out = append(out, fmt.Sprintf("%s %d", f.name, n))
		}
	}
	return out
}
