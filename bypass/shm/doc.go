// Package shm passes messages between processes of one machine through memory they share: no system call on the way, but for
// waking one that chose to sleep.
//
// Memory holds lanes, one for each writer, and in each lane a place for each reader: one to one is a lane and a reader, many to
// one is several lanes, one to many is several readers. Messages of one writer arrive in order. What happens when a reader is
// too slow is the [Policy]; whatever is not delivered is counted.
//
//	m, err := shm.Create(shm.Config{})     // hand m.File() to the other process, or tell it m.Path()
//	w, err := m.Writer()                   // in one process
//	err = w.Send(ctx, msg)
//	r, err := m.Reader(shm.Mixed)          // in the other
//	n, err := r.Receive(ctx, buf)          // io.EOF: the writer closed; ErrPeerGone: it died
//
// A process that dies is noticed: each writer and reader holds a lock on a byte of the memory's file, which the kernel gives back
// whatever happens. A message is seen when it is whole or not at all.
//
// fathom_shm.h is the same for C.
package shm
