package traffic

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Config says what a session opens.
type Config struct {
	Device xsk.Device
	Queues []int // nil: all that the device has
	Memory xsk.Memory
	Queue  xsk.Options
	Steer  steer.Options
	Rules  []steer.Rule
	// NoProgram leaves the device without an XDP program: enough to send.
	NoProgram bool
}

// Session is a device's queues with their sockets and the program that fills them.
type Session struct {
	Queues  []*xsk.Queue
	Program *steer.Program // nil with Config.NoProgram

	umems []*xsk.UMEM
}

// Open opens sockets, each with memory of its own, and then attaches the program. On an error nothing is left.
func Open(ctx context.Context, c Config) (s *Session, err error) {
	s = &Session{}
	defer func() {
		if err != nil {
			s, err = nil, errors.Join(err, s.Close())
		}
	}()
	if c.Queues == nil {
		for i := 0; ; i++ {
			if err := s.queue(ctx, c, i); errors.Is(err, unix.EINVAL) && i > 0 {
				break // the kernel says that there is none of this number
			} else if err != nil {
				return s, err
			}
		}
	}
	for _, i := range c.Queues {
		if err := s.queue(ctx, c, i); err != nil {
			return s, err
		}
	}
	if c.NoProgram {
		return s, nil
	}
	if s.Program, err = steer.Attach(c.Device, c.Rules, c.Steer); err != nil {
		return s, err
	}
	for _, q := range s.Queues {
		if q.Options().NoRX {
			continue
		}
		if err := s.Program.Add(q); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *Session) queue(ctx context.Context, c Config, i int) error {
	u, err := xsk.NewUMEM(c.Memory)
	if err != nil {
		return err
	}
	q, err := u.OpenContext(ctx, c.Device, i, c.Queue)
	if err != nil {
		return errors.Join(err, u.Close())
	}
	s.Queues, s.umems = append(s.Queues, q), append(s.umems, u)
	return nil
}

// Close takes the program away first, so that packets are the kernel's again, then closes the sockets.
func (s *Session) Close() error {
	var errs []error
	if s.Program != nil {
		errs = append(errs, s.Program.Close())
	}
	for _, q := range s.Queues {
		errs = append(errs, q.Close())
	}
	for _, u := range s.umems {
		errs = append(errs, u.Close())
	}
	return errors.Join(errs...)
}

// Each runs f for each queue, in a goroutine of its own, until all end. The first error ends the others' context.
func (s *Session) Each(ctx context.Context, f func(context.Context, int, *xsk.Queue) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(s.Queues))
	for i, q := range s.Queues {
		go func() { errs <- f(ctx, i, q) }()
	}
	var all []error
	for range s.Queues {
		err := <-errs
		if err != nil {
			cancel()
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}
