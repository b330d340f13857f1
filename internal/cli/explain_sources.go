package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/fathom-trace/fathom/answers/explain"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/netlog"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/oops"
	"github.com/fathom-trace/fathom/oops/cause"
)

// pstoreDir is where the kernel shows what it left.
const pstoreDir = "/sys/fs/pstore"

// maxPstore bounds a file: records are of some kilobytes, the largest of some megabytes.
const maxPstore = 64 << 20

// readPstore reads the files of a folder; those that systemd-pstore moved are one folder deeper. What could not be read is in
// the error, beside the text of the others.
func readPstore(dir string) (text []byte, err error) {
	var files []oops.PstoreFile
	walkErr := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxPstore))
		files = append(files, oops.PstoreFile{Name: filepath.Base(name), Data: b})
		return err
	})
	records, joinErr := oops.JoinPstore(files)
	for _, r := range records {
		text = append(text, r.Text...)
		text = append(text, '\n')
	}
	return text, errors.Join(walkErr, joinErr)
}

// explainer tells what incidents mean, as text, JSON or syslog.
type explainer struct {
	json, all bool
	syslog    string // where to send to, "" for nowhere
	src       explain.Sources
	host      string
	now       func() time.Time
}

// tell writes incidents.
func (x *explainer) tell(list []cause.Oops) error {
	if x.syslog != "" {
		if err := x.send(list); err != nil {
			return err
		}
	}
	w := bufio.NewWriter(os.Stdout)
	if x.json {
		if err := explain.JSON(w, list, x.src); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	} else {
		explain.Text(w, list, x.all, x.src)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// send sends each incident as a message.
func (x *explainer) send(list []cause.Oops) error {
	var all [][]byte
	for _, o := range list {
		m, err := explain.Syslog(o, x.host, x.now(), x.src)
		if err != nil {
			return fmt.Errorf("write message: %w", err)
		}
		all = append(all, m)
	}
	if err := netlog.Send(x.syslog, all); err != nil {
		return &diag.Error{What: "forward to syslog", Err: err, Try: []string{"fathom explain --syslog 127.0.0.1:514", "fathom explain --syslog /dev/log"}}
	}
	return nil
}

// listen explains what machines send by netconsole, until it is interrupted or the time is over. It fails if that was no incident.
func (x *explainer) listen(ctx context.Context, addr string, d time.Duration) error {
	l, err := netlog.Listen(addr)
	if err != nil {
		return &diag.Error{What: "listen to netconsole", Err: err, Try: []string{"fathom explain --netconsole :6666"}}
	}
	defer l.Close()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	fmt.Fprintf(os.Stderr, "fathom: listening to netconsole on %s; Ctrl-C ends\n", l.Addr())
	heard := false
	err = l.Receive(ctx, func(h netlog.Heard) error {
		if h.Lost > 0 {
			fmt.Fprintf(os.Stderr, "fathom: %d messages of %s did not come\n", h.Lost, h.Host)
		}
		list := explain.Oopses(h.Text, guest.NameOf)
		if len(list) == 0 {
			return nil
		}
		if !x.json {
			fmt.Printf("from %s\n", h.Host)
		}
		x.host, heard = h.Host, true
		return x.tell(list)
	})
	if err == nil && !heard {
		err = exitError{exitNegative}
	}
	return err
}
