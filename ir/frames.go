package ir

// How programs are told where callers are: FrameProcs, by the number of a process, has which part of FrameRows is about it
// (uint32 first, uint32 n); FrameRows has rows of FrameRowSize bytes by address, each for the code up to the next one's.
const (
	FrameProcs = ".dwprocs"
	FrameRows  = ".dwrows"

	FrameRowSize = 16
	FramePC      = 0  // uint64
	FrameCFA     = 8  // int32: the stack pointer before the call, from the base; the return address is 8 bytes below
	FrameFP      = 12 // int16: where the caller's frame pointer is, from there
	FrameBase    = 14 // uint8
	FrameFlags   = 15 // uint8
)

// Values of FrameBase.
const (
	FrameEnd  = iota // no caller, or it cannot be told
	FrameOnSP        // FrameCFA counts from the stack pointer
	FrameOnFP        // from the frame pointer
)

// Bits of FrameFlags.
const (
	FrameFPSaved = 1 << iota // the caller's frame pointer is at FrameFP
	FrameFPLost              // it cannot be told
	FrameSignal              // the caller was interrupted: its address is not behind a call
)

// FrameSteps bounds a search: FrameRows has fewer than 1 << FrameSteps rows.
const FrameSteps = 24
