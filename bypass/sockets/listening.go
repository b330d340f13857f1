package sockets

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// listening is a socket that listens. The program's end of the pair is readable as long as connections wait.
type listening struct {
	r      *run
	inode  string        // the program's end
	mine   *net.UnixConn // our end: it tells when the program has closed its own
	past   net.Listener  // of the stack
	kernel *net.TCPListener
	addr   net.Addr

	closing sync.Once
	mu      sync.Mutex // what follows
	o       options
	ready   []net.Conn // not accepted yet
	waiting []waiter   // in accept
	ended   bool
}

// waiter is a call of accept that waits.
type waiter struct {
	n     notification
	flags int
}

// maxReady is how many connections wait to be accepted at most, as the kernel's listeners have (net.core.somaxconn).
const maxReady = 4096

// bind of TCP the kernel does; it is looked at for what it tells the user.
func (r *run) bind(n notification, fd int) {
	b, err := read(n.pid, n.args[1], min(int(uint32(n.args[2])), unix.SizeofSockaddrInet6))
	a, ok := parseSockaddr(b)
	if err != nil || !ok || !r.port(a.Port()) {
		r.ask.pass(n.id)
		return
	}
	r.closed(a.Port())
	f, err := borrow(n.pid, fd)
	if err != nil {
		r.ask.pass(n.id)
		return
	}
	defer unix.Close(f)
	if _, ok := r.find(inode(n.pid, fd)).(*datagrams); isUDP(f) && !ok {
		r.bindDatagrams(n, fd, f, b, a)
		return
	}
	if !isTCP(f) && !isUDP(f) {
		r.stays(fmt.Sprintf("the socket bound to port %d is neither TCP nor UDP", a.Port()))
	}
	r.ask.pass(n.id)
}

func (r *run) port(p uint16) bool { return slices.Contains(r.Ports, p) }

// closed ends sockets of a port that the program has closed just now: it may bind another to it.
func (r *run) closed(port uint16) {
	r.mu.Lock()
	var all []*listening
	for _, x := range r.known {
		if l, ok := x.(*listening); ok && addrPort(l.addr).Port() == port {
			all = append(all, l)
		}
	}
	r.mu.Unlock()
	for _, l := range all {
		if closedThere(l.mine) {
			l.close()
		}
	}
}

// listen replaces a socket that is to listen on one of our ports.
func (r *run) listen(n notification, fd int) {
	if _, ok := r.find(inode(n.pid, fd)).(*listening); ok { // again
		r.ask.answer(n, nil)
		return
	}
	r.listens.Lock()
	defer r.listens.Unlock()
	f, err := borrow(n.pid, fd)
	if err != nil {
		r.ask.pass(n.id)
		return
	}
	defer unix.Close(f)
	if !isTCP(f) {
		r.ask.pass(n.id)
		return
	}
	name, err := unix.Getsockname(f)
	if err != nil {
		r.ask.pass(n.id)
		return
	}
	at, port := "", uint16(0)
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		at, port = net.IP(a.Addr[:]).String(), uint16(a.Port)
	case *unix.SockaddrInet6:
		at, port = net.IP(a.Addr[:]).String(), uint16(a.Port)
	}
	if !r.port(port) {
		r.ask.pass(n.id)
		return
	}
	listen := func() error { return unix.Listen(f, int(int32(n.args[1]))) }
	stays := r.replaceListener(n, fd, f, listen)
	if stays != nil {
		if err := listen(); err != nil {
			r.ask.answer(n, err)
			return
		}
		r.stays(fmt.Sprintf("connections to %s: %v", net.JoinHostPort(at, fmt.Sprint(port)), stays))
	}
	r.ask.answer(n, nil)
}

// replaceListener gives the program one end of a pair for f, which listens as well, once connections by our device come here.
func (r *run) replaceListener(n notification, fd, f int, listen func() error) (err error) {
	d, err := describe(n.pid, fd)
	if err != nil {
		return err
	}
	if reason := fixed(n.pid, fd, d.inode); reason != "" {
		return errors.New(reason)
	}
	l := &listening{r: r}
	if l.o, err = optionsOf(f); err != nil {
		return err
	}
	file, err := duplicate(f)
	if err != nil {
		return err
	}
	k, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return err
	}
	l.kernel = k.(*net.TCPListener)
	l.addr = l.kernel.Addr()
	defer func() {
		if err != nil {
			l.kernel.Close()
			_ = unix.SetNonblock(f, d.nonblock) // which package net has set for who has the socket, the program too
		}
	}()
	if l.past, err = r.s.ListenBound(l.kernel); err != nil {
		return err
	}
	if err := listen(); err != nil {
		l.past.Close()
		return err
	}
	theirs, inode, mine, err := newPair(d.nonblock)
	if err != nil {
		l.past.Close()
		return err
	}
	defer unix.Close(theirs)
	l.inode, l.mine = inode, mine
	r.remember(inode, l)
	if err := r.ask.replace(n.id, theirs, fd, d.cloexec); err != nil {
		r.forget(inode)
		l.past.Close()
		mine.Close()
		return err
	}
	r.wg.Go(func() { l.arrivals(l.past) })
	r.wg.Go(func() { l.arrivals(l.kernel) })
	r.wg.Go(func() {
		var b [1]byte
		for {
			if _, err := mine.Read(b[:]); err != nil {
				l.close()
				return
			}
		}
	})
	return nil
}

// close ends it when the program has; it has ended when close returns.
func (l *listening) close() { l.closing.Do(l.shut) }

func (l *listening) shut() {
	l.mu.Lock()
	l.ended = true
	left, waiting := l.ready, l.waiting
	l.ready, l.waiting = nil, nil
	l.mu.Unlock()
	for _, w := range waiting { // closed by another thread, or shut down
		l.r.ask.answer(w.n, unix.EINVAL)
	}
	// Others may have the socket yet, the stack for its connections among them: it must not listen.
	_ = control(l.kernel, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) })
	l.past.Close()
	l.kernel.Close()
	l.mine.Close()
	for _, c := range left {
		refuse(c)
	}
	l.r.forget(l.inode)
}

// refuse resets a connection that nobody takes.
func refuse(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// arrivals takes connections for the program, until the listener is closed.
func (l *listening) arrivals(from net.Listener) {
	for {
		c, err := from.Accept()
		if err != nil {
			l.mu.Lock()
			ended := l.ended
			l.mu.Unlock()
			if !ended {
				l.r.stays(fmt.Sprintf("no more connections to %v: %v", l.addr, err))
			}
			return
		}
		l.arrive(c)
	}
}

// arrive gives a connection to a call that waits, or has the program's end readable.
func (l *listening) arrive(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.ready) >= maxReady {
		refuse(c)
		return
	}
	for len(l.waiting) > 0 {
		w := l.waiting[0]
		l.waiting = l.waiting[1:]
		if l.deliver(w, c) {
			return
		}
	}
	l.ready = append(l.ready, c)
	// One more byte than before, so that epoll says it again; if there is no room the end is readable anyway.
	_ = control(l.mine, func(fd int) error { return send(fd, []byte{0}) })
}

// accept answers a call of accept.
func (r *run) accept(n notification, fd, flags int) {
	l, ok := r.find(inode(n.pid, fd)).(*listening)
	if !ok {
		r.ask.pass(n.id)
		return
	}
	d, err := describe(n.pid, fd)
	if err == nil && flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 {
		err = unix.EINVAL
	}
	if err != nil {
		r.ask.answer(n, err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ready) > 0 {
		c := l.ready[0]
		if !l.deliver(waiter{n, flags}, c) {
			return // its thread is gone: the connection waits on
		}
		if l.ready = l.ready[1:]; len(l.ready) == 0 {
			drain(n.pid, fd)
		}
		return
	}
	if d.nonblock {
		r.ask.answer(n, unix.EAGAIN)
		return
	}
	l.waiting = append(l.waiting, waiter{n, flags})
	r.wg.Go(func() { l.attend(n) })
}

// attend ends a call of accept that waits when a signal comes for its thread.
func (l *listening) attend(n notification) {
	for {
		time.Sleep(attention)
		signalled := signalled(n.pid)
		l.mu.Lock()
		i := slices.IndexFunc(l.waiting, func(w waiter) bool { return w.n.id == n.id })
		switch {
		case i < 0 || l.ended: // answered
			l.mu.Unlock()
			return
		case signalled || !l.r.ask.valid(n.id):
			l.waiting = slices.Delete(l.waiting, i, i+1)
			l.r.ask.answer(n, restart)
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// drain empties the program's end: it is not readable until the next connection comes.
func drain(pid uint32, fd int) {
	f, err := borrow(pid, fd)
	if err != nil {
		return
	}
	defer unix.Close(f)
	var b [256]byte
	for {
		if n, _, err := unix.Recvfrom(f, b[:], unix.MSG_DONTWAIT); err != nil || n < len(b) {
			return
		}
	}
}

// deliver answers a call of accept with a connection; false if nobody waits any more, and the connection is still to be had.
func (l *listening) deliver(w waiter, c net.Conn) bool {
	r := l.r
	peer := sockaddr(l.o.family, addrPort(c.RemoteAddr()), uint32(r.s.Index()))
	var nonblock, cloexec = w.flags&unix.SOCK_NONBLOCK != 0, w.flags&unix.SOCK_CLOEXEC != 0
	if w.n.args[1] != 0 {
		if err := result(w.n.pid, w.n.args[1], w.n.args[2], peer, true); err != nil {
			if !r.ask.valid(w.n.id) {
				return false
			}
			refuse(c)
			r.ask.answer(w.n, err)
			return true
		}
	}
	t, past := c.(tuned)
	if k, ok := c.(*net.TCPConn); ok {
		past = false
		err := control(k, func(fd int) error {
			if err := unix.SetNonblock(fd, nonblock); err != nil {
				return err
			}
			return r.ask.give(w.n, fd, cloexec)
		})
		if errors.Is(err, unix.ENOENT) {
			return false
		}
		k.Close()
		r.elsewhere.Add(1)
		if err != nil {
			r.ask.answer(w.n, err)
		}
		return true
	}
	theirs, inode, mine, err := newPair(nonblock)
	if err != nil {
		refuse(c)
		r.ask.answer(w.n, err)
		return true
	}
	defer unix.Close(theirs)
	x := &carried{r: r, inode: inode, mine: mine, o: l.o, c: t, told: true}
	if !past || l.o.set(t) != nil {
		mine.Close()
		refuse(c)
		r.ask.answer(w.n, unix.ECONNABORTED)
		return true
	}
	r.remember(inode, x)
	if err := r.ask.give(w.n, theirs, cloexec); err != nil {
		r.forget(inode)
		mine.Close()
		if errors.Is(err, unix.ENOENT) {
			return false
		}
		refuse(c)
		r.ask.answer(w.n, err)
		return true
	}
	r.accepted.Add(1)
	x.carry()
	return true
}
