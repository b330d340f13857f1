// Package fault makes networks in which packets are lost, each for one reason: a rule, a sysctl, a route, a full queue, a
// socket that is not there. Names, addresses, ports, MAC addresses and VLANs are drawn at random. A fault comes with the
// traffic that meets it, counted by sockets of its own, and with the answer: what a tool should say (package expect).
//
// It runs the fathom binary, as a person would, and nothing in fathom knows of it. All takes place in namespaces of its
// own; the few faults that are settings of the whole machine are for guests.
package fault
