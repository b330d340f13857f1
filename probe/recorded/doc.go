// Package recorded is a recording as a place for programs: the World that the checker asks, and a Session that runs programs
// over recorded events in the BPF machine. It is to a [record.Trace] what package probe is to the running kernel.
//
// tracepoint: programs run for the recorded events, in the order of their time, with the recorded time, CPU and task; begin and
// end run around them. What was not recorded has no answer, and is refused with the reason where the program asks for it: a
// pointer in an event points into a kernel that has gone on, so it can be printed and compared, and not followed.
package recorded
