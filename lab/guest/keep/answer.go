package keep

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// call is the first line that a client sends.
type call struct {
	Op      string            `json:"op"`
	Request *pid1.Request     `json:",omitempty"` // of session
	File    string            `json:",omitempty"` // of dump
	Dump    guest.DumpOptions `json:",omitzero"`
	Letter  string            `json:",omitempty"` // of sysrq
}

// What can be called.
const (
	opSession = "session" // frames follow, both ways
	opStatus  = "status"
	opDump    = "dump"
	opSysRq   = "sysrq"
	opConsole = "console" // text follows until one side closes
	opFreeze  = "freeze"  // the guest stands still until the client closes, who may ask for memory meanwhile
	opDown    = "down"
)

// reply is the line that answers.
type reply struct {
	Err    *failure `json:",omitempty"`
	Status *Status  `json:",omitempty"`
	Text   string   `json:",omitempty"`
}

// Status is how a guest is.
type Status struct {
	State    string `json:"state"` // QEMU's word, running or paused; or panicked
	Release  string `json:"release"`
	QEMU     int    `json:"qemu"` // process
	Sessions int    `json:"sessions"`
}

// answer serves one connection.
func (k *keeper) answer(c *net.UnixConn) {
	defer c.Close()
	r := bufio.NewReader(c)
	line, err := r.ReadBytes('\n')
	var in call
	if err == nil {
		err = json.Unmarshal(line, &in)
	}
	if err != nil {
		return // nobody there
	}
	enc := json.NewEncoder(c)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out reply
	switch in.Op {
	case opSession:
		k.session(c, r, in.Request)
		return
	case opConsole:
		k.console(c, r)
		return
	case opFreeze:
		k.freeze(ctx, enc, r)
		return
	case opStatus:
		out.Status, err = k.status(ctx)
	case opDump:
		if !filepath.IsAbs(in.File) {
			err = fmt.Errorf("dump to %q: not an absolute path", in.File)
			break
		}
		err = k.g.Dump(ctx, in.File, in.Dump)
	case opSysRq:
		out.Text, err = k.sysrq(ctx, in.Letter)
	case opDown:
		k.g.Quit()
		select {} // the end of the connection, with this process, says that all is removed
	default:
		err = fmt.Errorf("unknown call %q", in.Op)
	}
	if err != nil {
		out.Err = fail(err)
	}
	enc.Encode(out) // if nobody reads the answer, nobody needs it
}

// state asks QEMU.
func (k *keeper) state(ctx context.Context) (string, error) {
	b, err := k.g.QMP().Execute(ctx, "query-status", nil)
	if err != nil {
		return "", err
	}
	var s struct{ Status string }
	err = json.Unmarshal(b, &s)
	return s.Status, err
}

func (k *keeper) status(ctx context.Context) (*Status, error) {
	state, err := k.state(ctx)
	select {
	case <-k.g.Panicked():
		state = "panicked"
	default:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Status{State: state, Release: k.data.Kernel.Release, QEMU: k.g.PID(), Sessions: len(k.sessions)}, err
}

// Times of sysrq: how long the kernel may take to say something, and how long a silence ends what it says.
const (
	sysrqAnswer = 5 * time.Second
	sysrqSilent = 700 * time.Millisecond
	sysrqMost   = 60 * time.Second
)

// press presses Alt-SysRq and a key.
func (k *keeper) press(ctx context.Context, key string) error {
	var keys []map[string]string
	for _, q := range []string{"alt", "sysrq", key} {
		keys = append(keys, map[string]string{"type": "qcode", "data": q})
	}
	if _, err := k.g.QMP().Execute(ctx, "send-key", map[string]any{"keys": keys}); err != nil {
		return fmt.Errorf("press sysrq %s: %w", key, err)
	}
	return nil
}

// sysrq presses Alt-SysRq and a letter on the guest's keyboard, which needs nobody in it who still runs programs, and
// gives what the kernel then says on its console.
func (k *keeper) sysrq(ctx context.Context, letter string) (string, error) {
	code, ok := SysRqKey(letter)
	if !ok {
		return "", fmt.Errorf("sysrq %q: a letter or a digit", letter)
	}
	_, said, done := k.log.listen()
	defer done()
	if err := k.press(ctx, code); err != nil {
		return "", err
	}
	var text strings.Builder
	quiet := time.NewTimer(sysrqAnswer)
	most := time.After(sysrqMost)
	for {
		select {
		case b := <-said:
			text.Write(b)
			if strings.Contains(text.String(), "sysrq:") {
				quiet.Reset(sysrqSilent)
			}
			continue
		case <-k.g.Done(): // b and o end it
			return text.String(), nil
		case <-most:
		case <-quiet.C:
			if text.Len() == 0 {
				return "", errors.New("the kernel said nothing: SysRq may be masked (/proc/sys/kernel/sysrq), or no CPU takes interrupts")
			}
		}
		return text.String(), nil
	}
}

// SysRqKey is QEMU's name of a key of SysRq (Documentation/admin-guide/sysrq.rst): lower-case letters and digits.
func SysRqKey(letter string) (string, bool) {
	if len(letter) != 1 || !strings.Contains("abcdefghijklmnopqrstuvwxyz0123456789", letter) {
		return "", false
	}
	return letter, true
}

// console sends what was said and what is being said until the client closes.
func (k *keeper) console(c net.Conn, r *bufio.Reader) {
	before, said, done := k.log.listen()
	defer done()
	if _, err := c.Write([]byte(before)); err != nil {
		return
	}
	gone := closed(r)
	for {
		select {
		case b := <-said:
			if _, err := c.Write(b); err != nil {
				return
			}
		case <-gone:
			return
		case <-k.g.Done():
			return
		}
	}
}

// closed tells when a client that has nothing more to say closes.
func closed(r *bufio.Reader) chan struct{} {
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		for {
			if _, err := r.ReadByte(); err != nil {
				return
			}
		}
	}()
	return ch
}

// freeze stops the guest and writes registers and notes to headFile, as a dump of one page of memory: QEMU puts all notes
// into every dump. Then each line that the client sends is a piece of memory, which memFile has when it is answered. When the
// client closes, the guest goes on if it ran before.
func (k *keeper) freeze(ctx context.Context, enc *json.Encoder, r *bufio.Reader) {
	before, err := k.state(ctx)
	if err == nil {
		_, err = k.g.QMP().Execute(ctx, "stop", nil)
	}
	head, mem := filepath.Join(k.data.Folder, headFile), filepath.Join(k.data.Folder, memFile)
	if err == nil {
		err = k.g.Dump(ctx, head, guest.DumpOptions{Begin: 0, Length: 4096})
	}
	if err != nil {
		enc.Encode(reply{Err: fail(err)})
	} else if enc.Encode(reply{Text: head}) == nil {
		asked, gone := pieces(ctx, r), false
		for !gone {
			select {
			case p, ok := <-asked:
				if gone = !ok; ok {
					gone = enc.Encode(k.save(ctx, mem, p)) != nil
				}
			case <-k.g.Done():
				gone = true
			}
		}
		os.Remove(mem) // is there if memory was asked for
	}
	if before == "running" {
		k.g.QMP().Execute(ctx, "cont", nil) // fails if the guest is over
	}
}

// pieces are what a client asks for until it closes; the channel is closed then.
func pieces(ctx context.Context, r *bufio.Reader) <-chan piece {
	asked := make(chan piece)
	go func() {
		defer close(asked)
		for in := json.NewDecoder(r); ; {
			var p piece
			if in.Decode(&p) != nil {
				return
			}
			select {
			case asked <- p:
			case <-ctx.Done():
				return
			}
		}
	}()
	return asked
}

// save has QEMU write a piece of memory to a file.
func (k *keeper) save(ctx context.Context, file string, p piece) (out reply) {
	_, err := k.g.QMP().Execute(ctx, "pmemsave", map[string]any{"val": p.Addr, "size": p.Size, "filename": file})
	if out.Text = file; err != nil {
		out.Err = fail(err)
	}
	return out
}

// session carries frames between a client and the guest.
func (k *keeper) session(c net.Conn, r *bufio.Reader, q *pid1.Request) {
	if q == nil {
		return
	}
	rel := newRelay()
	id, ok := k.open(rel)
	w := pid1.NewFrameWriter(c)
	if !ok {
		w.SendJSON(pid1.Exit, 0, pid1.Exited{Code: 127, Err: "too many sessions"})
		return
	}
	ask, err := json.Marshal(q)
	if err != nil || len(ask) > pid1.MaxData {
		w.SendJSON(pid1.Exit, 0, pid1.Exited{Code: 127, Err: "the command is too long"})
		return
	}
	over := make(chan struct{})
	defer close(over)
	go func() { // what the client says
		k.g.Send(pid1.Ask, id, ask)
		in := pid1.NewFrameReader(r)
		for {
			f, err := in.Next()
			if err != nil {
				rel.end()
				k.g.Send(pid1.Signal, id, pid1.U32(9)) // nothing, if the session is over
				return
			}
			k.g.Send(f.Kind, id, f.Data)
		}
	}()
	go func() {
		select {
		case <-k.g.Done():
			rel.end()
		case <-k.g.Panicked():
			rel.put(pid1.Frame{Kind: pid1.Exit, Data: []byte(`{"Code":125,"Err":"its kernel panicked"}`)})
		case <-over:
		}
	}()
	for {
		f, ok := rel.get()
		if !ok {
			return
		}
		if w.Send(f.Kind, 0, f.Data) != nil || f.Kind == pid1.Exit {
			rel.end()
			return
		}
	}
}

// open numbers a session.
func (k *keeper) open(rel *relay) (id uint16, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	const most = 1024
	if len(k.sessions) >= most {
		return 0, false
	}
	for {
		id = pid1.FirstSession + k.next%(1<<15)
		k.next++
		if k.sessions[id] == nil {
			k.sessions[id] = rel
			return id, true
		}
	}
}
