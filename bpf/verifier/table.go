package verifier

import (
	"regexp"
	"sync"
)

// The kinds of refusal.
const (
	HelperHere   Kind = "helper-not-allowed"
	HelperGone   Kind = "helper-unknown"
	Kfunc        Kind = "kfunc-not-allowed"
	GPL          Kind = "gpl-only"
	TooLong      Kind = "too-complex"
	TooLarge     Kind = "too-large"
	Jumps        Kind = "too-many-jumps"
	StackDepth   Kind = "stack-depth"
	CallDepth    Kind = "call-depth"
	Loop         Kind = "loop"
	Unreachable  Kind = "unreachable"
	NullPointer  Kind = "maybe-null"
	NotPointer   Kind = "not-a-pointer"
	Unbounded    Kind = "unbounded"
	Negative     Kind = "may-be-negative"
	OutOfMap     Kind = "outside-value"
	OutOfStack   Kind = "outside-stack"
	OutOfStruct  Kind = "outside-struct"
	OutOfContext Kind = "outside-context"
	OutOfPacket  Kind = "outside-packet"
	Unwritten    Kind = "unwritten-stack"
	NoValue      Kind = "register-without-value"
	Arithmetic   Kind = "pointer-arithmetic"
	Leak         Kind = "pointer-leak"
	ReadOnly     Kind = "read-only"
	Misaligned   Kind = "misaligned"
	ArgType      Kind = "argument-type"
	Unreleased   Kind = "unreleased"
	Locked       Kind = "lock-held"
	NoFunction   Kind = "no-such-function"
	NoArgument   Kind = "no-such-argument"
	NoBTF        Kind = "function-without-types"
	NotTraceable Kind = "not-traceable"
	NotModify    Kind = "not-modifiable"
	ReturnValue  Kind = "return-value"
	NoSleep      Kind = "may-not-sleep"
	BadInsn      Kind = "bad-instruction"
	NoJIT        Kind = "no-jit"
)

// row is what is known of one message.
type row struct {
	kind     Kind
	re       *regexp.Regexp
	why, fix string
}

func known(kind Kind, pattern, why, fix string) row {
	return row{kind, regexp.MustCompile(pattern), why, fix}
}

// rows are looked at in order; the first that matches is taken. They are made when they are first asked for: most runs are
// never refused.
var rows = sync.OnceValue(func() []row {
	return []row{
		known(HelperHere, `^(?:helper call is not allowed in probe|program of this type cannot use helper |unknown func \S+#\d+|helper call is not allowed in )`,
			"helper {helper} not allowed in probe",
			"the kernel offers it to other kinds of probe, or only to functions on a list of its own: another probe type, or a function near by"),
		known(HelperGone, `^invalid func (?:unknown#)?\d+`,
			"this kernel has no {helper}", "a newer kernel; `fathom doctor` tells what this one has"),
		known(Kfunc, `^(?:calling kernel function (\S+) is not allowed|cannot call kernel function)`,
			"kernel function {0} may not be called from this type of probe", "kfunc_allowed() tells where it may"),
		known(GPL, `^cannot call (?:GPL-restricted function|GPL only function|kernel function) from non-GPL compatible program|^cannot call GPL`,
			"{helper} is for programs under the GPL only", "remove the license setting, or set it to \"GPL\""),
		known(TooLong, `^BPF program is too large\. Processed (\d+) insn`,
			"the verifier gave up after following {0} instructions: it walks every path of the program, and there are too many",
			"fewer branches inside loops; a smaller unroll(); while and for over a range are checked once, not round by round"),
		known(TooLarge, `^(?:BPF program is too large|program too large|too many subprograms)`,
			"the program has more instructions or functions than the kernel takes", "split it into several probes or scripts"),
		known(Jumps, `^[Tt]he sequence of (\d+) jumps is too complex`,
			"{0} jumps in a row leave too many states open for the verifier", "fewer branches in one piece: split the clause, or use a loop"),
		known(StackDepth, `^combined stack size of (\d+) calls is (\d+)\. Too large|^stack size (\d+)|^combined stack size`,
			"the program and what it calls need more than the 512 bytes of stack there are",
			"fewer or shorter strings and tuples alive at once; a loop in a loop needs a frame each"),
		known(CallDepth, `^the call stack of (\d+) frames is too deep|^call stack of \d+ frames`,
			"loops are nested deeper than the 8 calls the kernel allows", "fewer loops within loops"),
		known(Loop, `^(?:back-edge from insn (\d+) to|infinite loop detected|loop is not|BPF_MAX_LOOPS)`,
			"the verifier sees no end to a loop", "a loop with a bound it can see: for over a range, unroll()"),
		known(Unreachable, `^unreachable insn (\d+)`, "code that can never run was left in the program", "this is a fault of the compiler: please report the script"),
		known(NullPointer, `^R\d+ (?:invalid mem access|pointer arithmetic on|type=)\s*'?(\w+_or_null)|^Possibly NULL pointer passed|^R\d+ type=(\w+_or_null)`,
			"a pointer that may be NULL is used without having been looked at", "if ($p != 0) { … } around its use"),
		known(NotPointer, `^R\d+ invalid mem access '(\w+)'`,
			"a {0} is used as an address that may be read directly",
			"a pointer the kernel gave has to be followed with its own type: cast it, (struct T *)$x, so that it is read safely"),
		known(Unbounded, `^(?:R\d+ unbounded memory access|math between .* pointer and register with unbounded|R\d+ max value is outside of the allowed memory range|value -?\d+ makes .* pointer be out of bounds)`,
			"a number that could be anything is used as a length or index", "bound it first: if ($n < 64) { … }, or $n & 63"),
		known(Negative, `^R\d+ min value is (?:negative|outside of the allowed)|^R\d+ invalid negative|^invalid negative`,
			"a length or index could be negative", "make it unsigned and bound it: (uint64)$n & 0xff"),
		known(OutOfMap, `^invalid access to map (?:value|key), (?:value|key)_size=(\d+) off=(-?\d+) size=(\d+)|^invalid access to memory, mem_size=(\d+) off=(-?\d+)`,
			"{2} bytes at offset {1} are outside the {0} bytes of a value", "an index inside the array or value"),
		known(OutOfStack, `^(?:invalid (?:variable-offset )?(?:read from|write to|indirect access to|unbounded variable-offset \w+ \w+) stack|invalid stack type)`,
			"memory outside the program's stack", "an index inside the array"),
		known(OutOfPacket, `^invalid access to packet, off=(-?\d+) size=(\d+)`, "{1} bytes at offset {0} may be past the end of the packet", "compare with the packet's end first"),
		known(OutOfStruct, `^access beyond (?:struct |the end of )?(.+?)(?: at off (\d+) size (\d+))?$`,
			"bytes beyond the end of {0}", "the type the pointer really has"),
		known(OutOfContext, `^(?:invalid bpf_context access off=(-?\d+) size=(\d+)|func '(\S+)' doesn't have (\d+)-th argument|dereference of modified ctx)`,
			"the event has no such argument or field", "fathom trace -lv shows what the probe has"),
		known(Unwritten, `^invalid (?:indirect )?read from stack|^invalid indirect access to stack`,
			"bytes of the stack are read before anything was written there", "this is a fault of the compiler: please report the script"),
		known(NoValue, `^R(\d+) !read_ok`, "register {0} is read before it has a value", "this is a fault of the compiler: please report the script"),
		known(Arithmetic, `pointer arithmetic|^R\d+ pointer (\S+) |bitwise operator|pointer comparison prohibited|^math between (\S+) pointer|subtraction from (?:stack|pointer)|tried to (?:add|subtract)`,
			"arithmetic that the verifier does not allow on a pointer it follows", "make a number of it first: (uint64)$p"),
		known(Leak, `leaks addr|^R\d+ leaks`, "a kernel address would leave the program", "CAP_PERFMON, or do not store the pointer"),
		known(ReadOnly, `^(?:only read is supported|cannot write into|write into (\S+)|R\d+ cannot write|.* is read-?only|R\d+ type=(\S+) expected=.*rdonly)`,
			"memory that programs may only read would be written", "copy it into a variable first"),
		known(Misaligned, `^misaligned (\S+)`, "a value is read or written across its alignment", "a packed struct is read with a copy: str() or buf()"),
		known(ArgType, `^R(\d+) type=(\S+) expected=(.+)|^arg#\d+ (?:expected|pointer)|^R\d+ must be|^R\d+ is not a`,
			"{helper} is given something of the wrong kind", "the type that the function's documentation names"),
		known(Unreleased, `^Unreleased reference|reference has not been|would lead to reference leak`,
			"something that was taken from the kernel is not given back on every path", "this is a fault of the compiler: please report the script"),
		known(Locked, `lock.* held|inside bpf_(?:spin|rcu)|function calls are not allowed while holding a lock|bpf_spin_unlock is missing`,
			"a lock would be held over something that may not happen under it", "this is a fault of the compiler: please report the script"),
		known(NoArgument, `^func '(\S+)' arg(\d+) (.*)|^arg(\d+) '(\S+)'`, "argument {1} of {0} cannot be read by its type", "read it as a number: args.x through a kprobe, argN"),
		known(NotModify, `is not modifiable|^can't modify return`, "the kernel does not let programs change what this function returns", "functions marked ALLOW_ERROR_INJECTION: error_injection/list in debugfs"),
		known(NotTraceable, `^(?:can't attach|cannot attach|Cannot (?:recursively )?attach|The (?:BTF )?.* (?:cannot|can not) be attached|.* cannot be attached|attach to|.*attach_btf_id)`,
			"the kernel lets no program be attached to that function", "kprobe: for fentry:, or a function that calls it"),
		known(NoFunction, `^(?:(\S+) is not a (?:function|kernel function)|kernel btf_id \d+ is not a function|kernel function '(\S+)' address not found|The address of function (\S+) cannot be found)`,
			"there is no such function in the running kernel", "fathom trace -l 'fentry:*NAME*' lists what there is"),
		known(NoBTF, `^(?:The type of function|.*in-kernel BTF is malformed|missing btf|no BTF|.*FWD is not a struct|.*BTF is not)`,
			"the kernel has no types for that function", "kprobe: needs none"),
		known(ReturnValue, `^At (?:program exit|async callback return|subprogram exit) the register R(\d)`,
			"the program returns a value its kind of probe does not allow", "return without a value"),
		known(NoSleep, `might sleep|may sleep|sleepable`, "{helper} may sleep, and this probe runs where nothing may", "another probe, before or after it"),
		known(NoJIT, `JIT|jit`, "this needs the kernel's BPF compiler, which is off or missing", "sysctl net.core.bpf_jit_enable=1"),
		known(BadInsn, `^(?:unknown opcode|invalid BPF_|BPF_\w+ uses reserved|invalid insn|last insn is not an exit|jump out of range|R\d+ is invalid|frame pointer is read only|div by zero|invalid shift)`,
			"an instruction the kernel does not have", "this is a fault of the compiler: please report the script"),
	}
})
