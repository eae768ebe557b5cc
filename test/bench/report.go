package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// row is a figure of ours beside a peer's. Without a peer theirs and ratio are null,
// and target is for ours itself.
type row struct {
	Workload string   `json:"workload"`
	Peer     string   `json:"peer"`
	Ours     float64  `json:"ours"`
	Theirs   *float64 `json:"theirs"`
	Unit     string   `json:"unit"`
	Ratio    *float64 `json:"ratio"`
	// Target is null where none is set; then nothing is missed.
	Target *float64 `json:"target"`
	Met    bool     `json:"met"`
	Runs   int      `json:"runs"`
}

// nobody is the peer of figures that are ours alone.
const nobody = "none"

// measured is one build.
type measured struct {
	Engine     string  `json:"engine"`
	Round      int     `json:"round"`
	Seconds    float64 `json:"seconds"`
	CPU        float64 `json:"cpu_seconds,omitempty"`
	PeakMiB    float64 `json:"peak_mib,omitempty"`
	ImageMB    float64 `json:"image_mb,omitempty"` // all layers, compressed
	Requests   int     `json:"requests,omitempty"`
	LayerBytes int64   `json:"layer_bytes,omitempty"`
	Vertices   int     `json:"vertices,omitempty"`
}

func (m measured) String() string {
	s := fmt.Sprintf("%6.2f s", m.Seconds)
	if m.ImageMB > 0 {
		s += fmt.Sprintf(", image %.1f MB", m.ImageMB)
	}
	if m.CPU > 0 {
		s += fmt.Sprintf(", %.2f s CPU", m.CPU)
	}
	if m.PeakMiB > 0 {
		s += fmt.Sprintf(", largest process %.0f MiB", m.PeakMiB)
	}
	if m.Requests > 0 {
		s += fmt.Sprintf(", %d requests, %d bytes of layers", m.Requests, m.LayerBytes)
	}
	return s
}

// median of what value gives for each, 0 for none.
func median(all []measured, value func(measured) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	var values []float64
	for _, m := range all {
		values = append(values, value(m))
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func seconds(m measured) float64 { return m.Seconds }

// compare makes the rows of a workload that was built in turns.
func compare(w workload, results map[string][]measured) []row {
	var rows []row
	for _, peer := range peerNames {
		ours, theirs := results[oursBeside(peer)], results[peer]
		if len(ours) == 0 || len(theirs) == 0 {
			continue
		}
		r := row{Workload: w.name, Peer: peer, Unit: "s", Met: true, Runs: min(len(ours), len(theirs))}
		r.Ours = round(median(ours, seconds), 3)
		them := round(median(theirs, seconds), 3)
		ratio := round(r.Ours/them, 3)
		r.Theirs, r.Ratio = &them, &ratio
		if target, ok := w.targets[peer]; ok {
			r.Target, r.Met = &target, ratio <= target
		}
		rows = append(rows, r)
	}
	if ours := results[oursNamespaces]; w.cached && len(ours) > 0 && w.change == nil {
		// The targets of a build with nothing to do.
		requests := median(ours, func(m measured) float64 { return float64(m.Requests) })
		most := 20 + median(ours, func(m measured) float64 { return float64(m.Vertices) })
		bytes := median(ours, func(m measured) float64 { return float64(m.LayerBytes) })
		rows = append(rows, alone(w, requests, "requests", &most, len(ours)), alone(w, bytes, "layer bytes", new(float64), len(ours)))
	}
	return rows
}

// alone is a figure without a peer.
func alone(w workload, ours float64, unit string, target *float64, runs int) row {
	ours = round(ours, 3)
	return row{Workload: w.name, Peer: nobody, Ours: ours, Unit: unit, Target: target, Met: target == nil || ours <= *target, Runs: runs}
}

func round(f float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(f*scale) / scale
}

func printRows(to io.Writer, rows []row) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  workload\tpeer\tours\ttheirs\tunit\tratio\ttarget\t\truns")
	for _, r := range rows {
		verdict := "missed"
		if r.Met {
			verdict = "met"
		}
		if r.Target == nil {
			verdict = ""
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", r.Workload, r.Peer, figure(&r.Ours), figure(r.Theirs), r.Unit, figure(r.Ratio), figure(r.Target), verdict, r.Runs)
	}
	w.Flush()
}

func figure(f *float64) string {
	switch {
	case f == nil:
		return "-"
	case *f == math.Trunc(*f):
		return fmt.Sprintf("%.0f", *f)
	}
	return fmt.Sprintf("%.2f", *f)
}

// raw is all that was measured, for whoever wants to look closer.
type raw struct {
	Limits    []limit               `json:"limits,omitempty"`
	Workloads map[string][]measured `json:"workloads"`
}

// replace puts the runs of engines in the place of their earlier ones.
func (r *raw) replace(workload string, results map[string][]measured) {
	if r.Workloads == nil {
		r.Workloads = map[string][]measured{}
	}
	kept := slices.DeleteFunc(r.Workloads[workload], func(m measured) bool { return results[m.Engine] != nil })
	for _, engine := range slices.Sorted(maps.Keys(results)) {
		kept = append(kept, results[engine]...)
	}
	r.Workloads[workload] = kept
}

// save puts the figures into file, in the place of earlier ones of the same
// workload, peer and unit, and the raw runs into the file beside it.
func (b *bench) save(file string) error {
	old, err := readRows(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeJSON(file, mergeRows(old, b.rows)); err != nil {
		return err
	}
	beside := strings.TrimSuffix(file, ".json") + ".raw.json"
	var all raw
	if err := readJSON(beside, &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for workload, runs := range b.raw.Workloads {
		by := map[string][]measured{}
		for _, m := range runs {
			by[m.Engine] = append(by[m.Engine], m)
		}
		all.replace(workload, by)
	}
	if b.raw.Limits != nil {
		all.Limits = b.raw.Limits
	}
	return writeJSON(beside, all)
}

func mergeRows(old, new []row) []row {
	key := func(r row) [3]string { return [3]string{r.Workload, r.Peer, r.Unit} }
	rows := slices.DeleteFunc(slices.Clone(old), func(o row) bool {
		return slices.ContainsFunc(new, func(n row) bool { return key(n) == key(o) })
	})
	rows = append(rows, new...)
	slices.SortStableFunc(rows, func(a, b row) int {
		// nobody, who is not in peerNames, comes first.
		return cmp.Or(strings.Compare(a.Workload, b.Workload), slices.Index(peerNames, a.Peer)-slices.Index(peerNames, b.Peer), strings.Compare(a.Unit, b.Unit))
	})
	return rows
}

func readRows(file string) (rows []row, err error) { return rows, readJSON(file, &rows) }

func readJSON(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w: remove it to begin again", file, err)
	}
	return nil
}

func writeJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
