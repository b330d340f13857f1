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
	pfRE      = lazy(`^#PF: (supervisor|user) (read access|write access|instruction fetch) in (kernel|user) mode`)
	pfCodeRE  = lazy(`^#PF: error_code\(0x([0-9a-f]+)\) - (.*)`)
	oopsRE    = lazy(`^(?:Oops: )?[A-Za-z][A-Za-z0-9 ]*\b.*?: ([0-9a-f]{4}) \[#(\d+)\]`)
	stackRE   = lazy(`^</?([A-Z#_]+\d?)>$`)
	taskRE    = lazy(`^task:(.*?) +state:(\S) +stack:\s*\d+ +pid:\s*(\d+)`)
	endRE     = lazy(`^---\[ end (?:trace|Kernel panic)`)
	accessRE  = lazy(`^(Read|Write)(?: of size (\d+))? at addr ([0-9a-f]+) by task (.*)/(\d+)`)
	kfenceRE  = lazy(`^(?:Use-after-free|Out-of-bounds|Invalid) (read|write) at 0x([0-9a-f]+)`)
	kasanRE   = lazy(`^KASAN: (?:(null-ptr-deref)|(probably user-memory-access)|maybe wild-memory-access) in range \[0x([0-9a-f]+)-`)
	heldRE    = lazy(`, at: (\S+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\S+\])?)$`)
	mceRE     = lazy(`^mce: \[Hardware Error\]: RIP .*\{(\S+)\}`)
	armRE     = lazy(`\bWnR = ([01])|EC = 0x2[01]: IABT`)
	othersRE  = lazy(`^(?:[Aa]llocated by task|[Ff]reed by task|Last potentially related|Second to last potentially|Uninit was |Local variable |The buggy address belongs|Memory state around|INFO: task .* is blocked on)`)
	beforeRE  = lazy(`^(?:\[<[0-9a-f]+>\] +)+`)
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
	if strings.HasPrefix(line, "---[ end ") && endRE().MatchString(line) && !strings.Contains(line, "Kernel panic") {
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
	case strings.Contains(line, " [#") && oopsRE().MatchString(line):
		if r.ErrorCode == "" {
			r.ErrorCode = oopsRE().FindStringSubmatch(line)[1]
			r.pageFaulted = strings.Contains(line, "Oops: "+r.ErrorCode) // other traps stand between
		}
	case strings.HasPrefix(line, "#PF: "):
		r.pageFault(line)
	case strings.HasPrefix(line, "CPU: "):
		r.takeCPU(line)
	case strings.HasPrefix(line, "RIP: ") || strings.HasPrefix(line, "pc : "):
		r.takeRIP(line)
	case strings.HasPrefix(line, "Code: "):
		if r.Code == nil && !r.left() {
			r.takeCode(line[len("Code: "):])
		}
	case strings.HasPrefix(line, "Modules linked in:"):
		if r.Modules == nil {
			r.takeModules(line[len("Modules linked in:"):])
		}
	case strings.HasPrefix(line, "Hardware name: "):
		r.Hardware = line[len("Hardware name: "):]
	case strings.HasPrefix(line, "<") && stackRE().MatchString(line):
		r.Context = stackName(line, r.Context)
	case strings.Contains(line, " at addr ") && accessRE().MatchString(line):
		r.takeAccess(accessRE().FindStringSubmatch(line))
	case strings.HasPrefix(line, "KASAN: "):
		r.takeRange(kasanRE().FindStringSubmatch(line))
	case r.Kind == KFENCE && kfenceRE().MatchString(line):
		m := kfenceRE().FindStringSubmatch(line)
		r.Access = m[1]
		r.setAddr(m[2])
	case r.takesTrace(line):
	case r.takeFrame(line):
	default:
		r.takeOther(line)
	}
}

// takesTrace takes the lines that begin stacks. What came before a call trace was listed for another reason: who disabled
// preemption, the chain of locks. What comes after it belongs to others.
func (r *Report) takesTrace(line string) bool {
	switch {
	case strings.HasPrefix(line, "stack backtrace:"):
		r.Stack, r.traced, r.closed = nil, false, false
	case strings.EqualFold(strings.TrimRight(line, " "), "Call Trace:"):
		if r.traced {
			r.closed = true
		} else if !r.left() {
			r.Stack = nil
		}
		r.traced = true
	case othersRE().MatchString(line):
		r.closed = true
	default:
		return false
	}
	return true
}

// takeOther takes what only some kinds print, and registers.
func (r *Report) takeOther(line string) {
	switch {
	case r.Kind == Lockdep && r.RIP.IsZero() && !strings.HasPrefix(line, "#"): // "#0: …" are locks that are held
		if m := heldRE().FindStringSubmatch(line); m != nil {
			r.RIP, _ = location(m[1])
		}
	case r.Kind == MachineCheck && r.RIP.IsZero():
		if m := mceRE().FindStringSubmatch(line); m != nil {
			r.RIP, _ = location(m[1])
		}
	case r.Access == "" && strings.Contains(line, " = ") && armRE().MatchString(line):
		r.Access = map[string]string{"": "execute", "0": "read", "1": "write"}[armRE().FindStringSubmatch(line)[1]]
	}
	r.takeRegs(line)
}

// takeRange is what KASAN says of an address that missed its shadow (kasan_non_canonical_hook): the pointer behind it.
func (r *Report) takeRange(m []string) {
	if m == nil {
		return
	}
	switch {
	case m[1] != "":
		r.Kind = NullDeref
	case m[2] != "":
		r.Kind = UserAccess
	}
	r.HasAddr = false
	r.setAddr(m[3])
}

// setAddr keeps the first address that is said.
func (r *Report) setAddr(hex string) {
	if v, err := strconv.ParseUint(hex, 16, 64); err == nil && !r.HasAddr {
		r.Addr, r.HasAddr = v, true
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
	if len(r.Stack) > 0 && !r.closed {
		r.Stack = append(r.Stack, Frame{Location: l, Regs: true, Stack: r.Context})
	}
}

// location reads "symbol+0x12/0x34 [module]", or an address: user code, a jump to nowhere.
func location(s string) (Location, bool) {
	if strings.HasPrefix(s, "[<") { // before 4.10: addresses first
		s = beforeRE().ReplaceAllString(s, "")
	}
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
	if strings.HasPrefix(line, "[<") {
		line = beforeRE().ReplaceAllString(line, "")
		if s, ok := strings.CutPrefix(line, "? "); ok {
			line, f.Unsure = s, true
		}
	}
	if !strings.Contains(line, "+0x") {
		return false
	}
	m := locRE().FindStringSubmatch(line)
	if m == nil || r.closed || len(r.Stack) >= maxFrames {
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
	if !strings.Contains(line, ":") {
		return
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
	if !strings.HasPrefix(line, "task:") {
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
	r.setAddr(m[3])
	r.Comm = m[4]
	r.PID, _ = strconv.Atoi(m[5])
}

// finish derives what no single line says.
func (r *Report) finish() {
	r.Context = r.context()
	if cr2, ok := r.Regs["CR2"]; ok && !r.HasAddr && (r.Kind == NullDeref || r.Kind == PageFault) {
		r.Addr, r.HasAddr = cr2, true
	}
	if r.Access == "" && r.pageFaulted {
		r.Access = x86Access(r.ErrorCode)
	}
	if r.Kind == OtherOops && strings.Contains(r.Title, "Oops - BUG") {
		r.Kind = Bug
	}
	if r.Kind == Panic {
		r.Detail = r.Panic
	}
}

// context is what the fault happened in: of the frames up to where that was entered, the first that says.
func (r *Report) context() string {
	frames := r.Stack
	if i := r.interrupted(); i >= 0 {
		frames = frames[i+1:]
	}
	if i := slices.IndexFunc(frames, func(f Frame) bool { return f.Regs }); i >= 0 {
		frames = frames[:i] // what was interrupted begins
	}
	scanned := !hasCertain(frames)
	for _, f := range frames {
		name, _, _ := strings.Cut(f.Symbol, ".")
		switch {
		case f.Unsure != scanned:
		case f.Stack == "NMI" || name == "exc_nmi" || name == "asm_exc_nmi" || name == "nmi_handle":
			return "nmi"
		case name == "__do_softirq" || name == "handle_softirqs" || name == "run_ksoftirqd" || name == "do_softirq_own_stack":
			return "softirq"
		case strings.HasPrefix(name, "sysvec_") || strings.HasPrefix(name, "__sysvec_") || name == "common_interrupt" || name == "__common_interrupt" || name == "handle_irq_event":
			return "irq"
		}
	}
	if len(frames) > 0 && frames[0].Stack == "IRQ" {
		return "irq"
	}
	return "task"
}

// x86Access reads the error code of a page fault (arch/x86/include/asm/trap_pf.h), for kernels that do not say it in words.
func x86Access(code string) string {
	v, err := strconv.ParseUint(code, 16, 64)
	switch {
	case err != nil:
		return ""
	case v&0x10 != 0:
		return "execute"
	case v&2 != 0:
		return "write"
	}
	return "read"
}
