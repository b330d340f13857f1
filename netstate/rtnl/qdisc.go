package rtnl

import (
	"fmt"
	"math"
	"strconv"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

const (
	tcmsg      = 20
	tcaKind    = 1
	tcaOptions = 2
	tcaStats   = 3
	tcaStats2  = 7

	statsBasic = 1
	statsQueue = 3
)

// limits says for each kind of qdisc where its limit stands, and whether it counts bytes ("b") or packets ("p").
// attr 0 is a struct without attributes; off counts from its start.
var limits = map[string]struct {
	attr uint16
	off  int
	unit string
}{
	"pfifo":           {0, 0, "p"}, // struct tc_fifo_qopt
	"bfifo":           {0, 0, "b"},
	"pfifo_head_drop": {0, 0, "p"},
	"sfq":             {0, 8, "p"},  // struct tc_sfq_qopt
	"netem":           {0, 4, "p"},  // struct tc_netem_qopt
	"tbf":             {1, 24, "b"}, // TCA_TBF_PARMS, behind two struct tc_ratespec
	"red":             {1, 0, "b"},  // TCA_RED_PARMS
	"codel":           {2, 0, "p"},  // TCA_CODEL_LIMIT
	"fq_codel":        {2, 0, "p"},  // TCA_FQ_CODEL_LIMIT
	"fq":              {1, 0, "p"},  // TCA_FQ_PLIMIT
	"pie":             {2, 0, "p"},  // TCA_PIE_LIMIT
	"fq_pie":          {1, 0, "p"},  // TCA_FQ_PIE_LIMIT
}

// DecodeQdisc reads an RTM_NEWQDISC message (struct tcmsg).
func DecodeQdisc(b []byte) (netstate.Qdisc, error) {
	a, err := nlattr.ParseAt(b, tcmsg)
	if err != nil {
		return netstate.Qdisc{}, err
	}
	q := netstate.Qdisc{
		Link: int(int32(nlattr.U32(b[4:]))), Handle: nlattr.U32(b[8:]), Parent: nlattr.U32(b[12:]), Kind: a.String(tcaKind),
	}
	st := stats(a)
	q.Drops, q.QLen, q.Backlog = st.drops, st.qlen, st.backlog
	if at, ok := limits[q.Kind]; ok {
		d := a.Get(tcaOptions)
		if at.attr != 0 {
			d = a.Nested(tcaOptions).Get(at.attr)
		}
		if len(d) >= at.off+4 {
			q.Limit, q.Unit = uint64(nlattr.U32(d[at.off:])), at.unit
			q.Options = map[string]string{"limit": strconv.FormatUint(q.Limit, 10)}
		}
		if loss := 8; q.Kind == "netem" && len(d) >= loss+4 && nlattr.U32(d[loss:]) != 0 { // a share of 2³²-1
			q.Options["loss"] = strconv.FormatFloat(float64(nlattr.U32(d[loss:]))/math.MaxUint32*100, 'g', 4, 64) + "%"
		}
	}
	return q, nil
}

type tcStats struct{ packets, bytes, drops, qlen, backlog uint64 }

// stats reads TCA_STATS2, or struct tc_stats where a kernel gives only that.
func stats(a nlattr.Attrs) tcStats {
	var s tcStats
	two := a.Nested(tcaStats2)
	if d := two.Get(statsBasic); len(d) >= 12 { // struct gnet_stats_basic
		s.bytes, s.packets = nlattr.U64(d), uint64(nlattr.U32(d[8:]))
	}
	if d := two.Get(statsQueue); len(d) >= 12 { // struct gnet_stats_queue
		s.qlen, s.backlog, s.drops = uint64(nlattr.U32(d)), uint64(nlattr.U32(d[4:])), uint64(nlattr.U32(d[8:]))
		return s
	}
	if d := a.Get(tcaStats); len(d) >= 36 { // struct tc_stats
		s.bytes, s.packets, s.drops = nlattr.U64(d), uint64(nlattr.U32(d[8:])), uint64(nlattr.U32(d[12:]))
		s.qlen, s.backlog = uint64(nlattr.U32(d[28:])), uint64(nlattr.U32(d[32:]))
	}
	return s
}

// Parents of filters that are no class (pkt_sched.h).
const (
	Ingress uint32 = 0xfffffff2 // of clsact and ingress
	Egress  uint32 = 0xfffffff3 // of clsact
)

// actAttr is the attribute that holds a filter's actions, for each kind.
var actAttr = map[string]uint16{"matchall": 2, "u32": 7, "flower": 3, "bpf": 1, "fw": 4, "basic": 3, "cgroup": 1, "flow": 9, "route": 6}

const (
	bpfName  = 7
	bpfFlags = 8
	bpfID    = 11

	bpfFlagDirect = 1
)

// DecodeFilter reads an RTM_NEWTFILTER message (struct tcmsg). Drops and packets are those its actions count.
func DecodeFilter(b []byte) (netstate.Filter, error) {
	a, err := nlattr.ParseAt(b, tcmsg)
	if err != nil {
		return netstate.Filter{}, err
	}
	f := netstate.Filter{
		Link: int(int32(nlattr.U32(b[4:]))), Handle: nlattr.U32(b[8:]), Parent: ParentText(nlattr.U32(b[12:])),
		Prio: int(nlattr.U32(b[16:]) >> 16), Kind: a.String(tcaKind),
	}
	opt := a.Nested(tcaOptions)
	if f.Kind == "bpf" && opt != nil {
		f.Prog = &netstate.Prog{ID: opt.U32(bpfID), Name: opt.String(bpfName)}
		if opt.U32(bpfFlags)&bpfFlagDirect != 0 {
			f.Prog.Mode = "direct-action"
		}
	}
	for _, x := range opt.Nested(actAttr[f.Kind]) {
		act, err := nlattr.Parse(x.Data)
		if err != nil {
			return f, err
		}
		text, st := action(act)
		f.Acts = append(f.Acts, text)
		f.Drops += st.drops
		f.Packets = max(f.Packets, st.packets)
	}
	return f, nil
}

// ParentText is "ingress", "egress", or a class as tc writes it, "1:10".
func ParentText(p uint32) string {
	switch p {
	case Ingress, 0xffff0000, 0xfffffff1:
		return "ingress"
	case Egress:
		return "egress"
	case 0xffffffff:
		return "root"
	}
	if p&0xffff == 0 {
		return fmt.Sprintf("%x:", p>>16)
	}
	return fmt.Sprintf("%x:%x", p>>16, p&0xffff)
}

const (
	actKind    = 1
	actOptions = 2
	actStats   = 4
	actParms   = 2 // in most kinds: a struct that begins with tc_gen
	policeTBF  = 1
	actBPFName = 6
	actBPFID   = 9
)

var verdicts = map[int32]string{
	-1: "continue", 0: "pass", 1: "reclassify", 2: "drop", 3: "pipe", 4: "stolen", 5: "queued", 6: "repeat", 7: "redirect", 8: "trap",
}

// verdict is TC_ACT_…; the upper four bits tell jumps and chains from those.
func verdict(n uint32) string {
	switch n >> 28 {
	case 1:
		return fmt.Sprintf("jump %d", n&0xfffffff)
	case 2:
		return fmt.Sprintf("goto chain %d", n&0xfffffff)
	}
	if s, ok := verdicts[int32(n)]; ok {
		return s
	}
	return strconv.Itoa(int(int32(n)))
}

var redirects = map[uint32]string{1: "egress redirect", 2: "egress mirror", 3: "ingress redirect", 4: "ingress mirror"}

// action writes one action: "gact drop", "mirred egress redirect dev 7 stolen", "police drop".
func action(a nlattr.Attrs) (string, tcStats) {
	kind, opt := a.String(actKind), a.Nested(actOptions)
	parms := opt.Get(actParms)
	text := kind
	switch kind {
	case "police":
		text += " exceed"
		parms = opt.Get(policeTBF)
		if len(parms) >= 8 { // struct tc_police has the action before capab
			return text + " " + verdict(nlattr.U32(parms[4:])), stats(nlattr.Attrs{{Type: tcaStats2, Data: a.Get(actStats)}})
		}
	case "mirred":
		if len(parms) >= 28 {
			text += fmt.Sprintf(" %s dev %d", redirects[nlattr.U32(parms[20:])], nlattr.U32(parms[24:]))
		}
	case "bpf":
		text += fmt.Sprintf(" %s id %d", opt.String(actBPFName), opt.U32(actBPFID))
	}
	if len(parms) >= 12 { // tc_gen: index, capab, action, refcnt, bindcnt
		text += " " + verdict(nlattr.U32(parms[8:]))
	}
	return text, stats(nlattr.Attrs{{Type: tcaStats2, Data: a.Get(actStats)}})
}
