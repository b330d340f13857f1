package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/fathom-trace/fathom/answers/rank"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/tracefs"
)

// depthAnswer is what --stack-depth says.
type depthAnswer struct {
	by     string // what looked at stacks
	room   uint64 // bytes of a stack; 0 if that is not known
	stacks []deepStack
	other  uint64 // samples on stacks of interrupts
	lost   uint64
	frames []rank.Frame
	read   int   // functions
	noCode error // why there are no frames
	notes  []string
}

// deepStack is a stack, the innermost frame first.
type deepStack struct {
	Type   string      `json:"type"`
	Bytes  uint64      `json:"bytes"`
	Hits   uint64      `json:"hits,omitempty"` // samples
	Frames []deepFrame `json:"frames"`
}

type deepFrame struct {
	Function string `json:"function"`
	Depth    uint64 `json:"depth,omitempty"` // bytes in use, the frame's included; 0 if that is not known
	Bytes    uint64 `json:"bytes,omitempty"` // of the frame
}

// depth answers --stack-depth.
func (r *ranking) depth(ctx context.Context, stdout, stderr io.Writer) (err error) {
	if err := r.openWorld(); err != nil {
		return err
	}
	a := &depthAnswer{}
	st, err := r.fs.OpenStackTracer()
	switch {
	case err == nil && (st.On() || r.f.system):
		err = r.traceDepth(ctx, st, a, stderr)
	case err != nil && !errors.Is(err, feature.ErrUnsupported):
	default:
		if err != nil {
			a.notes = append(a.notes, fmt.Sprintf("no stack tracer, which sees every call: %v", err))
		} else {
			a.notes = append(a.notes, "the kernel's stack tracer, which sees every call, is off: --allow-system-changes has it on meanwhile")
		}
		err = r.sampleDepth(ctx, a, stderr)
	}
	if err != nil {
		return err
	}
	r.frames(a)
	if r.f.json {
		err = a.json(stdout, r.f.top)
	} else {
		err = a.text(stdout, r.f.top)
	}
	if !r.f.quiet {
		for _, n := range a.notes {
			fmt.Fprintf(stderr, "fathom: %s\n", n)
		}
	}
	if err == nil && r.f.strict && a.lost > 0 {
		return exitError{exitLost}
	}
	return err
}

// traceDepth has the kernel's stack tracer look.
func (r *ranking) traceDepth(ctx context.Context, st *tracefs.StackTracer, a *depthAnswer, stderr io.Writer) (err error) {
	a.by = "by the stack tracer, which was on before"
	if !st.On() {
		a.by = "by the stack tracer"
		if err := st.Start(leases()); err != nil {
			return rankError("--stack-depth", err)
		}
		defer func() { err = errors.Join(err, st.Close()) }()
	}
	if err := r.wait(ctx, stderr); err != nil {
		return err
	}
	fs, err := st.Deepest()
	if err != nil {
		return rankError("--stack-depth", err)
	}
	if len(fs) == 0 {
		return nil
	}
	deep := deepStack{Type: "stack", Bytes: fs[0].Depth}
	for _, f := range fs {
		deep.Frames = append(deep.Frames, deepFrame{f.Name, f.Depth, f.Size})
	}
	a.stacks = append(a.stacks, deep)
	return nil
}

// sampleDepth looks at each CPU's stack pointer time and again.
func (r *ranking) sampleDepth(ctx context.Context, a *depthAnswer, stderr io.Writer) error {
	cpus, err := r.live.NumCPU()
	if err != nil {
		return err
	}
	types, err := r.live.Types()
	if err != nil {
		return rankError("--stack-depth", err)
	}
	d, err := rank.NewDepths(r.world, types, cpus)
	if err != nil {
		return rankError("--stack-depth", err)
	}
	defer d.Close()
	a.by = fmt.Sprintf("by samples, %d a second on each CPU", rank.DepthHz)
	if err := d.Begin(); err != nil {
		return rankError("--stack-depth", err)
	}
	if err := r.wait(ctx, stderr); err != nil {
		return err
	}
	all, other, lost, err := d.End()
	if err != nil {
		return rankError("--stack-depth", err)
	}
	a.other, a.lost, a.room = other, lost, d.Room()
	for _, s := range all {
		deep := deepStack{Type: "stack", Bytes: s.Bytes, Hits: s.Hits}
		for _, f := range r.live.Stack(s.Stack) {
			deep.Frames = append(deep.Frames, deepFrame{Function: frameText(f.Addr, f.Name, f.Off)})
		}
		a.stacks = append(a.stacks, deep)
	}
	return nil
}

// frames reads the frames of functions out of the running kernel's code.
func (r *ranking) frames(a *depthAnswer) {
	if runtime.GOARCH != "amd64" {
		a.noCode = errors.New("frames are read out of the code of x86-64 only")
		return
	}
	mem, err := r.live.Kcore()
	if err != nil {
		a.noCode = err
		return
	}
	defer mem.Close()
	syms, err := r.live.Kallsyms()
	if err == nil {
		err = syms.Hidden()
	}
	if err != nil {
		a.noCode = err
		return
	}
	a.frames, a.read = rank.Frames(mem, syms.Text(), rank.LargeFrame)
}

func head[T any](all []T, n int) []T {
	if n <= 0 {
		return all
	}
	return all[:min(n, len(all))]
}

// text writes the answer for people.
func (a *depthAnswer) text(w io.Writer, top int) error {
	b := bufio.NewWriter(w)
	of := ""
	if a.room > 0 {
		of = fmt.Sprintf(" of %d", a.room)
	}
	if len(a.stacks) == 0 {
		fmt.Fprintf(b, "no stack was seen %s\n", a.by)
	}
	for i, s := range head(a.stacks, top) {
		if i == 0 {
			fmt.Fprintf(b, "the deepest stacks of the kernel, %s\n", a.by)
		}
		fmt.Fprintf(b, "\n%d%s bytes", s.Bytes, of)
		if s.Hits > 0 {
			fmt.Fprintf(b, ", seen %d times", s.Hits)
		}
		fmt.Fprintln(b)
		if s.Hits == 0 {
			fmt.Fprintf(b, "%8s %8s  FUNCTION\n", "DEPTH", "BYTES")
		}
		for _, f := range s.Frames {
			if f.Depth > 0 {
				fmt.Fprintf(b, "%8d %8d  %s\n", f.Depth, f.Bytes, f.Function)
			} else {
				fmt.Fprintf(b, "    %s\n", f.Function)
			}
		}
	}
	if a.other > 0 {
		fmt.Fprintf(b, "\n%d samples were in interrupts, which have stacks of their own\n", a.other)
	}
	if a.lost > 0 {
		fmt.Fprintf(b, "%d samples lost\n", a.lost)
	}
	if a.noCode != nil {
		fmt.Fprintf(b, "\nno frames of functions: %v\n", a.noCode)
		return b.Flush()
	}
	fmt.Fprintf(b, "\nthe largest frames of functions, by the first instructions of %d\n%8s  FUNCTION\n", a.read, "BYTES")
	for _, f := range head(a.frames, top) {
		fmt.Fprintf(b, "%8d  %s\n", f.Bytes, frameName(f))
	}
	return b.Flush()
}

func frameName(f rank.Frame) string {
	if f.Module != "" {
		return f.Name + " [" + f.Module + "]"
	}
	return f.Name
}

// json writes an object a line: stacks, frames, and what there is to say.
func (a *depthAnswer) json(w io.Writer, top int) error {
	b := bufio.NewWriter(w)
	e := jsonl.NewEncoder(b)
	type frame struct {
		Type     string `json:"type"`
		Function string `json:"function"`
		Module   string `json:"module,omitempty"`
		Bytes    uint64 `json:"bytes"`
	}
	type account struct {
		Type      string `json:"type"`
		By        string `json:"by"`
		Room      uint64 `json:"room,omitempty"`
		Functions int    `json:"functions"`
		Other     uint64 `json:"interrupts,omitempty"`
		Lost      uint64 `json:"lost"`
		NoFrames  string `json:"no_frames,omitempty"`
	}
	var errs []error
	for _, s := range head(a.stacks, top) {
		errs = append(errs, e.Encode(s))
	}
	for _, f := range head(a.frames, top) {
		errs = append(errs, e.Encode(frame{"frame", f.Name, f.Module, f.Bytes}))
	}
	last := account{"account", a.by, a.room, a.read, a.other, a.lost, ""}
	if a.noCode != nil {
		last.NoFrames = a.noCode.Error()
	}
	return errors.Join(append(errs, e.Encode(last), b.Flush())...)
}
