package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
)

func took(engine string, seconds ...float64) (all []measured) {
	for i, s := range seconds {
		all = append(all, measured{Engine: engine, Round: i + 1, Seconds: s})
	}
	return all
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		of   []float64
		want float64
	}{
		"none":             {nil, 0},
		"one":              {[]float64{3}, 3},
		"even":             {[]float64{4, 1}, 2.5},
		"odd_and_unsorted": {[]float64{9, 1, 100, 2, 3}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.Equal(median(took("x", tc.of...), seconds), tc.want))
		})
	}
}

// Ours in a container is what stands beside kaniko, and the figures have the
// promised form.
func TestCompare(t *testing.T) {
	t.Parallel()
	w := workload{name: "W2", targets: map[string]float64{peerKaniko: 0.25, peerBuildKit: 0.9}}
	rows := compare(w, map[string][]measured{
		oursNamespaces: took(oursNamespaces, 1, 3, 2),
		oursInPlace:    took(oursInPlace, 1.2, 1.2, 1.1),
		peerKaniko:     took(peerKaniko, 9.8, 9.9, 9.1),
		peerBuildKit:   took(peerBuildKit, 2.1, 2.1),
		peerBuildah:    took(peerBuildah, 8, 8, 8),
	})
	data, err := json.MarshalIndent(rows, "", "  ")
	assert.NilError(t, err)
	golden.Assert(t, string(data)+"\n", "rows.golden")
}

func TestCompare_a_cached_build_has_figures_of_its_own(t *testing.T) {
	t.Parallel()
	ours := []measured{{Engine: oursNamespaces, Requests: 31, Vertices: 10, LayerBytes: 5}}
	rows := compare(workload{name: "W4", cached: true}, map[string][]measured{oursNamespaces: ours})
	assert.Assert(t, is.Len(rows, 2))
	assert.Check(t, is.Equal(rows[0].Unit, "requests"))
	assert.Check(t, is.Equal(*rows[0].Target, 30.0))
	assert.Check(t, !rows[0].Met)
	assert.Check(t, is.Equal(rows[1].Ours, 5.0))
	assert.Check(t, !rows[1].Met, "a byte is one too many")
	assert.Check(t, is.Nil(rows[1].Ratio))
}

// What another part of the measurement found stays.
func TestSave_replaces_what_was_measured_again(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "figures.json")
	part := func(w string, theirs float64, seconds float64) *bench {
		ratio := 0.5
		b := &bench{rows: []row{{Workload: w, Peer: peerBuildKit, Unit: "s", Theirs: &theirs, Ratio: &ratio}}}
		b.raw.replace(w, map[string][]measured{peerBuildKit: took(peerBuildKit, seconds)})
		return b
	}
	assert.NilError(t, part("W2", 1, 1).save(file))
	assert.NilError(t, part("M1", 2, 2).save(file))
	assert.NilError(t, part("W2", 3, 3).save(file))
	rows, err := readRows(file)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(rows, 2))
	assert.Check(t, is.Equal(rows[0].Workload, "M1"))
	assert.Check(t, is.Equal(*rows[1].Theirs, 3.0))
	var all raw
	assert.NilError(t, readJSON(strings.TrimSuffix(file, ".json")+".raw.json", &all))
	assert.Check(t, is.DeepEqual(all.Workloads["W2"], took(peerBuildKit, 3)))
	assert.Check(t, is.DeepEqual(all.Workloads["M1"], took(peerBuildKit, 2)))
}

func TestChart(t *testing.T) {
	t.Parallel()
	ratio, theirs, target := 2.0, 4.0, 0.9
	svg := chart([]row{
		{Workload: "M1", Peer: peerBuildKit, Ours: 8, Theirs: &theirs, Unit: "s", Ratio: &ratio, Target: &target},
		{Workload: "W8", Peer: nobody, Ours: 60, Unit: "MiB"},
	})
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
	}
	assert.Check(t, is.Contains(string(svg), `width="500.0" height="12" rx="2" class="missed"`), "a bar ends where the figures begin")
	assert.Check(t, is.Contains(string(svg), "200 %: 8 s beside 4 s"))
	assert.Check(t, is.Contains(string(svg), "a 4 GiB layer: peak memory: 60 MiB"))
	assert.Check(t, !strings.Contains(string(svg), "W1"), "what was not measured is not there")
}

// The README's chart is of the figures beside it.
func TestChart_in_the_docs(t *testing.T) {
	t.Parallel()
	rows, err := readRows("../../docs/bench.json")
	assert.NilError(t, err)
	svg, err := os.ReadFile("../../docs/bench.svg")
	assert.NilError(t, err)
	assert.Check(t, string(svg) == string(chart(rows)), "run: go run ./test/bench -draw docs/bench.json -chart docs/bench.svg")
}

func TestPick(t *testing.T) {
	t.Parallel()
	got, err := pick([]string{"W8", "M1"})
	assert.NilError(t, err)
	assert.Check(t, is.Len(got, 2))
	_, err = pick([]string{"W77"})
	assert.ErrorContains(t, err, "want M1, W1")
}
