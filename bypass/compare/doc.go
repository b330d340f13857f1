// Package compare measures the kernel's ways of sending and receiving datagrams beside AF_XDP, on the same two devices, in rounds in
// which all ways take turns: round trips one after the other, and packets as fast as they go.
//
// Each end is a process of its own, on one CPU: [Side] is what it does, [Run] starts the pairs. What is compared are ratios
// within a round ([Ratio]); if the rounds disagree about which way is better, the answer is that they do.
package compare
