package probe

import (
	"cmp"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/usersym"
)

// usdts finds statically defined probes: in a file, in files that match, in those of the process of -p, or in all that run.
func (w *World) usdts(p check.AttachPoint) ([]check.Target, error) {
	if p.Module == "" && w.pid == 0 {
		return nil, peerError("usdt probe must specify at least path or pid to probe. To target all paths/pids set the path to '*'.")
	}
	target := p.Module
	if target == "" {
		target = "*"
	}
	var out []check.Target
	for _, path := range w.binaries(target) {
		probes, err := w.users.USDT(path)
		if err != nil {
			if wild(target) {
				continue // not all files are programs
			}
			return nil, err
		}
		shown := path // a path is named as it was given
		if strings.Contains(target, "/") && !wild(target) {
			shown = target
		}
		out = append(out, places(p, path, shown, probes)...)
	}
	return out, nil
}

// places gives the targets in one file: every place of every probe that matches, those of one probe in a row.
func places(p check.AttachPoint, path, shown string, probes []usersym.Probe) []check.Target {
	var out []check.Target
	for _, n := range probes {
		if p.Unit != "" && !check.Match(p.Unit, n.Provider) || !check.Match(p.Func, n.Name) {
			continue
		}
		out = append(out, check.Target{
			Provider: "usdt", Module: path, Func: n.Name, Offset: n.Offset, Sema: n.Semaphore, USDT: n.Args,
			Name: "usdt:" + shown + ":" + n.Provider + ":" + n.Name,
		})
	}
	sorting.Stable(out, func(a, b check.Target) int { return cmp.Compare(a.Name, b.Name) })
	for i := range out {
		out[i].Again = i > 0 && out[i].Name == out[i-1].Name
	}
	return out
}
