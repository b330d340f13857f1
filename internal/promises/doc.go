// Package promises holds the binary to what it promises whatever happens: nothing is left behind by processes that are killed, accounts are
// exact in overloads, disks may be full or broken, others may trace at the same time, the kernel may refuse what it likes, and equal
// input gives equal bytes. It has tests only: a sample of them runs with all others, make promises runs them as often as EnvTimes says and
// writes docs/reliability.md. What parsers do with hostile bytes is tested where they are (package hostile).
package promises

// EnvTimes is how often each test that draws at random draws: kills, overloads. If it is empty, some.
const EnvTimes = "FATHOM_PROMISES"
