package graph

import (
	"io"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

// jsonCall is a call in JSON. Names of fields are a promise; times are nanoseconds.
type jsonCall struct {
	Func    string     `json:"function,omitempty"`
	Off     bool       `json:"off_cpu,omitempty"`
	CPU     int        `json:"cpu"`
	Start   uint64     `json:"start_ns"`
	Dur     uint64     `json:"dur_ns"`
	Self    uint64     `json:"self_ns"`
	Context string     `json:"context,omitempty"` // softirq, hardirq, nmi
	Irq     bool       `json:"interrupt,omitempty"`
	Cut     bool       `json:"return_unseen,omitempty"`
	Calls   []jsonCall `json:"calls,omitempty"`
}

// jsonTree is one line of JSON.
type jsonTree struct {
	Type string `json:"type"` // "call"
	Task int    `json:"tid"`
	Comm string `json:"comm"`
	Off  uint64 `json:"off_cpu_ns"`
	Hide uint64 `json:"calls_not_kept,omitempty"`
	jsonCall
}

// JSON writes a tree as one line of JSON.
func JSON(w io.Writer, t *Tree, name func(uint64) string) error {
	return jsonl.Write(w, jsonTree{Type: "call", Task: t.Task, Comm: t.Comm, Off: t.OffCPU(), Hide: t.Hidden, jsonCall: toJSON(&t.Call, name)})
}

func toJSON(c *Call, name func(uint64) string) jsonCall {
	j := jsonCall{Off: c.Off, CPU: c.CPU, Start: c.Start, Dur: c.Dur, Self: c.Self(), Context: c.Ctx.String(), Irq: c.Irq, Cut: c.Cut}
	if !c.Off {
		j.Func = name(c.Func)
	}
	for _, k := range c.Calls {
		j.Calls = append(j.Calls, toJSON(k, name))
	}
	return j
}
