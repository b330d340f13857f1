package oops

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// parser holds the incidents that are being read, by caller.
type parser struct {
	all  []*Report
	open map[string]*Report
}

// Lines inside an incident.
var (
	locRE     = lazy(`^([^\s+/]+)\+0x([0-9a-f]+)/0x([0-9a-f]+)(?: +\[([^\]\s]+)[^\]]*\])?`)
	cpuRE     = lazy(`^CPU: (\d+)(?: UID: \d+)? PID: (\d+) Comm: (.*?) (Not tainted|Tainted: [A-Z ]*?) +(\S+) #`)
	ripRE     = lazy(`^(?:RIP: \S+?:|pc : |RIP: )(\S.*)`)
	regRE     = lazy(`\b([A-Z][A-Z0-9]{1,7}|x\d+|sp|lr): ?([0-9a-f]{4,16})\b`)
	codeRE    = lazy(`^Code: (.*)`)
	modRE     = lazy(`^Modules linked in: ?(.*)`)
	hwRE      = lazy(`^Hardware name: (.*)`)
	pfRE      = lazy(`^#PF: (supervisor|user) (read access|write access|instruction fetch) in (kernel|user) mode`)
	pfCodeRE  = lazy(`^#PF: error_code\(0x([0-9a-f]+)\) - (.*)`)
	oopsRE    = lazy(`^(?:Oops: )?(?:Oops|general protection fault|invalid opcode|divide error|stack guard page|double fault)\b.*?: ([0-9a-f]{4}) \[#(\d+)\]`)
	stackRE   = lazy(`^</?([A-Z#_]+\d?)>$`)
	taskRE    = lazy(`^task:(.*?) +state:(\S) +stack:\s*\d+ +pid:\s*(\d+)`)
	endRE     = lazy(`^---\[ end (?:trace|Kernel panic)`)
	accessRE  = lazy(`^(Read|Write) of size (\d+) at addr ([0-9a-f]+) by task (.*)/(\d+)`)
	hexAddrRE = lazy(`^0x[0-9a-f]+$`)
)

// line takes one line of the text.
func (p *parser) line(n int, line, from string) {
	r := p.open[from]
	if o, g := opens(line); o != nil {
		p.begin(n, line, from, o, g)
		return
	}
	if r == nil {
		return
	}
	if endRE().MatchString(line) && !strings.Contains(line, "Kernel panic") {
		r.Ended = true
		return
	}
	r.take(line)
}

// begin opens an incident, or adds to the one that is open when the line is part of it: "Oops:" after "BUG: unable to …",
// a panic after anything.
func (p *parser) begin(n int, line, from string, o *opening, g map[string]string) {
	r := p.open[from]
	switch {
	case r != nil && o.kind == Panic:
		if r.Panic == "" {
			r.Panic = g["panic"]
		}
		return
	case r != nil && !r.Ended && o.joins && !r.body():
		r.fill(g)
		r.take(line)
		return
	case r != nil && !r.Ended && o.kind == Bug && r.Kind == ListCorruption && !r.body():
		return
	}
	r = &Report{Kind: o.kind, Title: line, Line: n, CPU: -1, PID: -1, Fault: -1, Regs: map[string]uint64{}}
	r.fill(g)
	r.take(line)
	p.open[from] = r
	p.all = append(p.all, r)
}

// body says that the incident has more than its opening lines.
func (r *Report) body() bool { return len(r.Stack) > 0 || len(r.Code) > 0 || r.Release != "" }

// take reads a line inside an incident. The first of a kind counts: what an oops prints of the system call that led to it
// comes after its own registers.
func (r *Report) take(line string) {
	line = strings.TrimLeft(line, " \t")
	switch {
	case oopsRE().MatchString(line):
		if r.ErrorCode == "" {
			r.ErrorCode = oopsRE().FindStringSubmatch(line)[1]
		}
	case strings.HasPrefix(line, "#PF: "):
		r.pageFault(line)
	case strings.HasPrefix(line, "CPU: "):
		r.takeCPU(line)
	case strings.HasPrefix(line, "RIP: ") || strings.HasPrefix(line, "pc : "):
		r.takeRIP(line)
	case codeRE().MatchString(line):
		if r.Code == nil && !r.left() {
			r.takeCode(codeRE().FindStringSubmatch(line)[1])
		}
	case modRE().MatchString(line):
		if r.Modules == nil {
			r.takeModules(modRE().FindStringSubmatch(line)[1])
		}
	case hwRE().MatchString(line):
		r.Hardware = hwRE().FindStringSubmatch(line)[1]
	case stackRE().MatchString(line):
		r.Context = stackName(line, r.Context)
	case accessRE().MatchString(line):
		r.takeAccess(accessRE().FindStringSubmatch(line))
	case r.takeFrame(line):
	default:
		r.takeRegs(line)
	}
}

// left says that the trace has come to the registers of user mode or of what was interrupted: code and registers that
// follow are theirs.
func (r *Report) left() bool {
	return slices.ContainsFunc(r.Stack, func(f Frame) bool { return f.Regs })
}

// stackName keeps the stack that following frames are on; Context is turned into words at the end.
func stackName(line, now string) string {
	if strings.HasPrefix(line, "</") {
		return ""
	}
	return strings.Trim(line, "<>")
}

func (r *Report) pageFault(line string) {
	if m := pfRE().FindStringSubmatch(line); m != nil {
		r.Access = map[string]string{"read access": "read", "write access": "write", "instruction fetch": "execute"}[m[2]]
	}
	if m := pfCodeRE().FindStringSubmatch(line); m != nil {
		r.Detail = m[2]
		if m[2] == "permissions violation" && r.HasAddr && r.Addr>>47 == 0 && r.Kind == PageFault {
			r.Kind = UserAccess
		}
	}
}

func (r *Report) takeCPU(line string) {
	m := cpuRE().FindStringSubmatch(line)
	if m == nil || r.Release != "" {
		return
	}
	r.CPU, _ = strconv.Atoi(m[1])
	r.PID, _ = strconv.Atoi(m[2])
	r.Comm, r.Release = m[3], m[5]
	if t, ok := strings.CutPrefix(m[4], "Tainted: "); ok {
		r.Tainted = strings.ReplaceAll(t, " ", "")
	}
}

func (r *Report) takeRIP(line string) {
	m := ripRE().FindStringSubmatch(line)
	if m == nil {
		return
	}
	l, ok := location(m[1])
	if !ok {
		return
	}
	if r.RIP.IsZero() && len(r.Stack) == 0 {
		r.RIP = l
		return
	}
	if len(r.Stack) > 0 {
		r.Stack = append(r.Stack, Frame{Location: l, Regs: true, Stack: r.Context})
	}
}

// location reads "symbol+0x12/0x34 [module]", or an address: user code, a jump to nowhere.
func location(s string) (Location, bool) {
	if m := locRE().FindStringSubmatch(s); m != nil {
		off, err1 := strconv.ParseUint(m[2], 16, 64)
		size, err2 := strconv.ParseUint(m[3], 16, 64)
		return Location{Symbol: m[1], Off: off, Size: size, Module: m[4]}, err1 == nil && err2 == nil
	}
	first, _, _ := strings.Cut(s, " ")
	if hexAddrRE().MatchString(first) {
		v, err := strconv.ParseUint(first[2:], 16, 64)
		return Location{Addr: v}, err == nil
	}
	return Location{Symbol: first}, first != ""
}

const maxFrames = 4096

func (r *Report) takeFrame(line string) bool {
	f := Frame{Stack: r.Context}
	if s, ok := strings.CutPrefix(line, "? "); ok {
		line, f.Unsure = s, true
	}
	if strings.HasPrefix(line, "[<") { // before 4.x: an address first
		if _, rest, ok := strings.Cut(line, ">] "); ok {
			line = rest
			if s, ok := strings.CutPrefix(line, "? "); ok {
				line, f.Unsure = s, true
			}
		}
	}
	m := locRE().FindStringSubmatch(line)
	if m == nil || len(r.Stack) >= maxFrames {
		return m != nil
	}
	f.Location, _ = location(line)
	r.Stack = append(r.Stack, f)
	return true
}

func (r *Report) takeRegs(line string) {
	if len(r.Stack) > 0 {
		return // the registers of user mode, or of what was interrupted
	}
	for _, m := range regRE().FindAllStringSubmatch(line, -1) {
		v, err := strconv.ParseUint(m[2], 16, 64)
		if _, have := r.Regs[m[1]]; err == nil && !have {
			r.Regs[m[1]] = v
		}
	}
	if strings.HasPrefix(line, "RSP: ") || strings.HasPrefix(line, "sp : ") {
		return
	}
	if m := taskRE().FindStringSubmatch(line); m != nil && r.Comm == "" {
		r.Comm = m[1]
		r.PID, _ = strconv.Atoi(m[3])
	}
}

func (r *Report) takeCode(s string) {
	for w := range strings.FieldsSeq(s) {
		marked := strings.HasPrefix(w, "<") || strings.HasPrefix(w, "(")
		b, err := hex.DecodeString(strings.Trim(w, "<>()"))
		if err != nil {
			return // "Unable to access opcode bytes at …", "Bad RIP value."
		}
		if marked {
			r.Fault = len(r.Code)
		}
		if len(b) == 4 { // arm64 prints instructions as numbers
			b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
		}
		r.Code = append(r.Code, b...)
	}
}

func (r *Report) takeModules(s string) {
	s, _, _ = strings.Cut(s, "[last unloaded")
	for w := range strings.FieldsSeq(s) {
		name, flags, _ := strings.Cut(strings.TrimSuffix(w, ")"), "(")
		r.Modules = append(r.Modules, Module{name, flags})
	}
}

// takeAccess is KASAN's second line.
func (r *Report) takeAccess(m []string) {
	r.Access = strings.ToLower(m[1])
	if v, err := strconv.ParseUint(m[3], 16, 64); err == nil {
		r.Addr, r.HasAddr = v, true
	}
	r.Comm = m[4]
	r.PID, _ = strconv.Atoi(m[5])
}

// finish derives what no single line says.
func (r *Report) finish() {
	ctx := "task"
	for _, f := range r.Stack {
		switch {
		case f.Stack == "IRQ":
			ctx = "irq"
			for _, g := range r.Stack {
				if g.Symbol == "__do_softirq" || g.Symbol == "handle_softirqs" {
					ctx = "softirq"
				}
			}
		case f.Stack == "NMI":
			ctx = "nmi"
		default:
			continue
		}
		break
	}
	r.Context = ctx
	if cr2, ok := r.Regs["CR2"]; ok && !r.HasAddr && (r.Kind == NullDeref || r.Kind == PageFault) {
		r.Addr, r.HasAddr = cr2, true
	}
	if r.Kind == OtherOops && strings.Contains(r.Title, "Oops - BUG") {
		r.Kind = Bug
	}
	if r.Kind == Panic {
		r.Detail = r.Panic
	}
}
