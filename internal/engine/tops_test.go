package engine

import (
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// Which layers a store need not keep apart from their trees. That a hint is not
// wrong is checked by the store of all tests.
func TestTops(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		dockerfile string
		opened     bool
		// want has the last words of the steps, context of the source.
		want []string
	}{
		"last_copy":            {dockerfile: "FROM debian\nCOPY a /1\nCOPY a /2\n", want: []string{"/2", "context"}},
		"last_run":             {dockerfile: "FROM debian\nCOPY a /1\nRUN 2\n", want: []string{"2", "context"}},
		"links":                {dockerfile: "FROM debian\nCOPY --link a /1\nCOPY --link a /2\n", want: []string{"/1", "/2", "context"}},
		"step_on_links":        {dockerfile: "FROM debian\nCOPY --link a /1\nCOPY a /2\n", want: []string{"/2", "context"}},
		"links_that_are_read":  {dockerfile: "FROM debian AS x\nCOPY --link a /1\nFROM debian\nCOPY --from=x /1 /2\n", want: []string{"/2", "context"}},
		"stage_that_is_read":   {dockerfile: "FROM debian AS x\nCOPY a /1\nFROM debian\nCOPY --from=x /1 /2\n", want: []string{"/2", "context"}},
		"scratch_that_is_read": {dockerfile: "FROM scratch AS x\nCOPY a /1\nFROM debian\nCOPY --from=x /1 /2\n", want: []string{"/1", "/2", "context"}},
		"mounted_context":      {dockerfile: "FROM debian\nRUN --mount=target=/m 1\n", want: []string{"1", "context"}},
		"writable_context":     {dockerfile: "FROM debian\nRUN --mount=target=/m,rw 1\n", want: []string{"1"}},
		"a_step_beside":        {dockerfile: "FROM debian AS x\nRUN 1\nFROM debian AS y\nCOPY a /2\nFROM scratch\nCOPY --from=x / /3\nCOPY --link --from=y / /4\n", want: []string{"/3", "context"}},
		"a_step_before":        {dockerfile: "FROM debian AS x\nRUN 1\nFROM debian\nCOPY --from=x / /2\n", want: []string{"/2"}},
		"opened_images":        {dockerfile: "FROM debian\nCOPY a /1\n", opened: true, want: []string{"context"}},
		"opened_scratch":       {dockerfile: "FROM scratch\nCOPY a /1\n", opened: true, want: []string{"/1", "context"}},
		"opened_links":         {dockerfile: "FROM debian\nCOPY --link a /1\n", opened: true, want: []string{"context"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			g := f.load(tc.dockerfile, "linux/amd64")
			tops := topsOf(g, tc.opened, func(*graph.Vertex) bool { return true })
			got := []string{}
			for _, v := range g.Vertices {
				below, ok := layered(v)
				var t tree
				switch {
				case isSource(v):
				case !ok:
					continue
				case below != graph.None:
					t = tree{nil}
				}
				if len(tops.hints(graph.Edge{Vertex: v}, t)) > 0 {
					words := strings.Fields(v.Name)
					got = append(got, words[len(words)-1])
				}
			}
			slices.Sort(got)
			assert.DeepEqual(t, got, tc.want)
		})
	}
}

func TestTops_source(t *testing.T) {
	t.Parallel()
	source := &graph.Vertex{Op: &graph.LocalSource{Name: "context"}}
	edge := graph.Edge{Vertex: source}
	on := func(op graph.Op) *graph.Graph {
		v := &graph.Vertex{Op: op, Inputs: []*graph.Edge{&edge}}
		return &graph.Graph{Vertices: []*graph.Vertex{source, v}, Images: []*graph.Image{{Root: &graph.Edge{Vertex: v}}}}
	}
	for name, tc := range map[string]struct {
		graph *graph.Graph
		want  int
	}{
		"image":   {&graph.Graph{Vertices: []*graph.Vertex{source}, Images: []*graph.Image{{Root: &edge}}}, 1},
		"base":    {on(&graph.File{Actions: []graph.Action{{Input: 0, Source: graph.None, Do: &graph.Mkdir{}}}}), 0},
		"copied":  {on(&graph.File{Actions: []graph.Action{{Input: graph.None, Source: 0, Do: &graph.Copy{}}}}), 1},
		"root":    {on(&graph.Exec{Mounts: []graph.Mount{{Input: 0, Dest: "/", ReadOnly: true, Output: graph.None}}}), 0},
		"mounted": {on(&graph.Exec{Mounts: []graph.Mount{{Input: 0, Dest: "/m", ReadOnly: true, Output: graph.None}}}), 1},
	} {
		for _, opened := range []bool{false, true} {
			tops := topsOf(tc.graph, opened, func(*graph.Vertex) bool { return true })
			assert.Check(t, is.Len(tops.hints(edge, nil), tc.want), name)
		}
	}
}

// Which layers need not be kept, those that no image has.
func TestTops_passing(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		dockerfile string
		want       []string
	}{
		"steps":       {"FROM debian AS x\nRUN 1\nCOPY a /2\nRUN 3\nFROM debian\nCOPY --from=x / /4\n", []string{"/2", "1", "3"}},
		"two_readers": {"FROM debian AS x\nRUN 1\nFROM debian\nCOPY --from=x /a /3\nCOPY --from=x /b /4\n", []string{"1"}},
		"two_stages":  {"FROM debian AS x\nRUN 1\nFROM x AS y\nRUN 2\nFROM x AS z\nRUN 3\nFROM debian\nCOPY --from=y / /\nCOPY --from=z / /\n", []string{"2", "3"}},
		"read_and_on": {"FROM debian AS x\nRUN 1\nFROM x AS y\nRUN 2\nFROM debian\nCOPY --from=x / /\nCOPY --from=y / /\n", []string{"2"}},
		"owner":       {"FROM debian AS x\nRUN 1\nCOPY --chown=app a /2\nFROM debian\nCOPY --from=x / /\n", []string{"/2"}},
		"link":        {"FROM debian AS x\nRUN 1\nCOPY --link a /2\nFROM debian\nCOPY --from=x / /\n", []string{}},
		"image":       {"FROM debian\nRUN 1\nCOPY a /2\n", []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			g := f.load(tc.dockerfile, "linux/amd64")
			exported := exported(g)
			tops := topsOf(g, false, func(v *graph.Vertex) bool { return exported[v] })
			got := []string{}
			for _, v := range g.Vertices {
				if _, ok := layered(v); ok && slices.Contains(tops.hints(graph.Edge{Vertex: v}, nil), rootfs.Passing) {
					words := strings.Fields(v.Name)
					got = append(got, words[len(words)-1])
				}
			}
			slices.Sort(got)
			assert.DeepEqual(t, got, tc.want)
		})
	}
}
