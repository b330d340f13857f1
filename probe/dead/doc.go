// Package dead is a dead kernel as a place for programs: the World that the checker asks, and a Session that runs programs
// over the kernel's objects in the BPF machine. It is to a [kernel.Target] what package probe is to the running kernel.
//
// A dump executes nothing: programs run for the objects of a kind, iter:task and the like, once each, and begin and end run
// around them. What an iterator of the running kernel has in its context, it has here; while the object belongs to a task,
// that task is the current one, which in the running kernel it is not: there it is the one who reads. What has no answer in a
// dump is refused by [World.NoFunc], with the reason; nothing is made up.
package dead
