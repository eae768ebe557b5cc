package engine

import (
	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// settling is one look at whether entries of the cache go together.
type settling struct {
	entries map[*graph.Vertex]*cache.Entry
	needed  map[*graph.Vertex]bool
	// known are the layers of the trees that are known without running anything.
	known map[*graph.Vertex][]digest.Digest
	// runs are the vertices that have to run, and all that depend on them.
	runs map[*graph.Vertex]bool
	// behind are the steps that the result of a vertex is of, and of which its
	// entry says nothing.
	behind map[*graph.Vertex][]*graph.Vertex
	// users counts the results that are of a step; an image is one, too.
	users map[*graph.Vertex]int
	// assumed are trees of which only entries say what they were.
	assumed map[graph.Edge]digest.Digest
}

func (b *build) newSettling(entries map[*graph.Vertex]*cache.Entry) *settling {
	s := &settling{
		entries: entries, needed: b.needed(entries), known: b.knownLayers(entries),
		runs:    map[*graph.Vertex]bool{},
		behind:  map[*graph.Vertex][]*graph.Vertex{},
		users:   map[*graph.Vertex]int{},
		assumed: map[graph.Edge]digest.Digest{},
	}
	for _, v := range b.graph.Vertices {
		_, hit := entries[v]
		_, merge := v.Op.(*graph.Merge)
		s.runs[v] = s.needed[v] && !hit && !merge && b.tasks[v].outputs == nil
		for _, in := range v.Inputs {
			s.runs[v] = s.runs[v] || s.runs[in.Vertex]
		}
		if hit {
			s.lookBehind(v)
		}
		if s.needed[v] {
			s.users[v]++
		}
	}
	return s
}

// lookBehind notes which steps the result of v is of, down to those whose trees
// are known. Behind one that is not known, nothing is.
func (s *settling) lookBehind(v *graph.Vertex) {
	all, behind := map[*graph.Vertex]bool{}, map[*graph.Vertex]bool{}
	var visit func(v *graph.Vertex, direct bool)
	visit = func(v *graph.Vertex, direct bool) {
		for _, in := range v.Inputs {
			w := in.Vertex
			if !direct && behind[w] {
				continue
			}
			if _, ok := layered(w); ok {
				all[w] = true
				behind[w] = behind[w] || !direct
			}
			if _, ok := s.known[w]; !direct || !ok {
				visit(w, false)
			}
		}
	}
	visit(v, true)
	for w := range all {
		s.users[w]++
		if behind[w] {
			s.behind[v] = append(s.behind[v], w)
		}
	}
}

// fits reports whether an entry was made of what the inputs of v are, as far as
// anybody can tell, and nothing that it depends on is made again.
func (s *settling) fits(v *graph.Vertex, e *cache.Entry) (bool, error) {
	if s.runs[v] || len(e.Inputs) != len(v.Inputs) {
		return false, nil
	}
	for i, in := range v.Inputs {
		if isSource(in.Vertex) {
			continue // its files are part of the key
		}
		if layers, ok := s.known[in.Vertex]; ok {
			id, err := chainID(layers)
			if err != nil || id != e.Inputs[i] {
				return false, err
			}
			continue
		}
		if other, ok := s.assumed[*in]; ok && other != e.Inputs[i] {
			return false, nil
		}
		s.assumed[*in] = e.Inputs[i]
	}
	// Entries name their direct inputs only: what is further down cannot be
	// compared with what others were made of.
	for _, w := range s.behind[v] {
		if s.users[w] > 1 {
			return false, nil
		}
	}
	return true, nil
}
