// Package remote runs verbs of this binary on other hosts, over the ssh program of whoever asks, and gives back what they say
// in the order of its time.
//
// A connection begins with a line of sh on the far side: it says what kind of system that is, takes the binary into a folder
// of its own, checks its hash, and starts it. That removes its folder, which the kernel allows, runs the verb as a process
// of its own, and passes on what it says in frames. It answers pings, by which the near side knows how far the two clocks
// are apart, and it ends with the connection: what cannot be told to anyone is not looked for.
//
// The near side is [Dial] for one host and [Run] for several; the far side is [ServeFar].
package remote
