// Package record makes recordings of a kernel's trace events, and opens recordings: its own, and those of LTTng, trace-cmd
// and perf.
//
// A [Recorder] has a tracing instance of its own. While it records, the pages of the kernel's ring buffers go by splice into
// DIR/fathom/cpuN.raw; when it is closed they become a trace in the Common Trace Format 1.8 in DIR, which other programs
// read. DIR/fathom keeps what that format has no place for: the events' own formats, which names the tasks had, the names of
// addresses, and the account of what was lost. A recording that was killed has its pages still, and [Open] reads them.
package record
