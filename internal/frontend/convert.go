package frontend

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/urlutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/platform"
)

// graphBuilder makes one graph of the definitions of all platforms: vertices
// that do the same work become one.
type graphBuilder struct {
	graph    graph.Graph
	vertices map[digest.Digest]*graph.Vertex
	// file maps a file name of the front end to the user's.
	file func(string) string
}

func (b *graphBuilder) finish() *graph.Graph { return &b.graph }

// add converts a definition and returns its result; nil is scratch.
func (b *graphBuilder) add(def *pb.Definition) (*graph.Edge, error) {
	if def == nil || len(def.Def) == 0 {
		return nil, nil
	}
	d := definition{graphBuilder: b, pb: def, ops: map[string]*pb.Op{}, done: map[string]*graph.Vertex{}}
	var last *pb.Op
	for _, dt := range def.Def {
		op := &pb.Op{}
		if err := op.UnmarshalVT(dt); err != nil {
			return nil, fmt.Errorf("decoding an operation: %w", err)
		}
		d.ops[digest.FromBytes(dt).String()] = op
		last = op
	}
	if len(last.Inputs) != 1 {
		return nil, fmt.Errorf("a definition ends in %d results, want 1", len(last.Inputs))
	}
	return d.edge(last.Inputs[0])
}

// definition is one definition while it is converted.
type definition struct {
	*graphBuilder
	pb   *pb.Definition
	ops  map[string]*pb.Op
	done map[string]*graph.Vertex
}

func (d *definition) edge(in *pb.Input) (*graph.Edge, error) {
	v, err := d.vertex(in.Digest)
	if err != nil {
		return nil, err
	}
	return &graph.Edge{Vertex: v, Output: int(in.Index)}, nil
}

func (d *definition) vertex(id string) (*graph.Vertex, error) {
	if v, ok := d.done[id]; ok {
		return v, nil
	}
	op, ok := d.ops[id]
	if !ok {
		return nil, fmt.Errorf("operation %s is missing", id)
	}
	v := &graph.Vertex{Location: d.location(id)}
	for _, in := range op.Inputs {
		e, err := d.edge(in)
		if err != nil {
			return nil, err
		}
		v.Inputs = append(v.Inputs, e)
		if e.Vertex.Location.Start == 0 {
			// A source belongs to the first line that wants it.
			e.Vertex.Location = v.Location
		}
	}
	var err error
	if v.Op, err = convertOp(op); err != nil {
		if v.Location.Start > 0 {
			return nil, &Error{File: v.Location.File, Line: v.Location.Start, Err: err}
		}
		return nil, err
	}
	switch v.Op.(type) {
	case *graph.Exec, *graph.ImageSource:
		v.Platform = convertPlatform(op.Platform)
	}
	meta := d.pb.Metadata[id]
	v.Name = name(meta, v.Op)
	v.NoCache = meta.GetIgnoreCache()
	if v.Digest, err = key(v); err != nil {
		return nil, err
	}
	if same, ok := d.vertices[v.Digest]; ok {
		unite(same, v)
		v = same
	} else {
		d.vertices[v.Digest] = v
		d.graph.Vertices = append(d.graph.Vertices, v)
	}
	d.done[id] = v
	return v, nil
}

// unite makes v serve for other, too, which has the same digest.
func unite(v, other *graph.Vertex) {
	v.NoCache = v.NoCache || other.NoCache
	a, ok := v.Op.(*graph.LocalSource)
	if !ok {
		return
	}
	b := other.Op.(*graph.LocalSource)
	if len(a.FollowPaths) == 0 || len(b.FollowPaths) == 0 {
		a.FollowPaths = nil // one of them needs everything
		return
	}
	a.FollowPaths = append(a.FollowPaths, b.FollowPaths...)
	slices.Sort(a.FollowPaths)
	a.FollowPaths = slices.Compact(a.FollowPaths)
}

// key identifies a vertex by what it does.
func key(v *graph.Vertex) (digest.Digest, error) {
	type input struct {
		Vertex digest.Digest
		Output int
	}
	k := struct {
		Version  int
		Kind     string
		Platform string
		Op       graph.Op
		Inputs   []input
	}{Version: 1, Kind: fmt.Sprintf("%T", v.Op), Op: v.Op}
	if v.Platform != nil {
		k.Platform = platform.Format(*v.Platform)
	}
	if l, ok := v.Op.(*graph.LocalSource); ok {
		// Which files are asked for differs between platforms that share the
		// source; see unite.
		k.Op = &graph.LocalSource{Name: l.Name, Include: l.Include, Exclude: l.Exclude}
	}
	for _, e := range v.Inputs {
		k.Inputs = append(k.Inputs, input{e.Vertex.Digest, e.Output})
	}
	sum := digest.SHA256.Digester()
	if err := graph.Hash(sum.Hash(), k); err != nil {
		return "", fmt.Errorf("computing the key of %s: %w", v.Name, err)
	}
	return sum.Digest(), nil
}

func (d *definition) location(id string) graph.Location {
	for _, l := range d.pb.GetSource().GetLocations()[id].GetLocations() {
		infos := d.pb.Source.Infos
		if len(l.Ranges) == 0 || int(l.SourceIndex) >= len(infos) {
			continue
		}
		first, last := l.Ranges[0].Start, l.Ranges[len(l.Ranges)-1].End
		return graph.Location{
			File:  d.file(infos[l.SourceIndex].Filename),
			Start: int(first.Line),
			End:   int(max(first.Line, last.GetLine())),
		}
	}
	return graph.Location{}
}

// name is what a person sees of a vertex.
func name(meta *pb.OpMetadata, op graph.Op) string {
	if n := meta.GetDescription()["llb.customname"]; n != "" {
		return n
	}
	switch op := op.(type) {
	case *graph.ImageSource:
		return "FROM " + op.Ref
	case *graph.LocalSource:
		return "[internal] load " + op.Name
	case *graph.HTTPSource:
		return urlutil.RedactCredentials(op.URL)
	case *graph.GitSource:
		return urlutil.RedactCredentials(op.Remote)
	case *graph.Exec:
		return strings.Join(op.Args, " ")
	case *graph.Merge:
		return "merge"
	case *graph.File:
		return fileName(op)
	}
	return fmt.Sprintf("%T", op)
}

func fileName(op *graph.File) string {
	var names []string
	for _, a := range op.Actions {
		switch do := a.Do.(type) {
		case *graph.Copy:
			names = append(names, "copy "+do.Src+" "+do.Dest)
		case *graph.Mkdir:
			names = append(names, "mkdir "+do.Path)
		case *graph.Mkfile:
			names = append(names, "mkfile "+do.Path)
		}
	}
	return strings.Join(names, ", ")
}

func convertPlatform(p *pb.Platform) *ocispecs.Platform {
	if p == nil {
		host := platform.Host()
		return &host
	}
	return &ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
}

func convertOp(op *pb.Op) (graph.Op, error) {
	if err := refuseUnknown(op.ProtoReflect()); err != nil {
		return nil, err
	}
	switch v := op.Op.(type) {
	case *pb.Op_Source:
		return convertSource(v.Source)
	case *pb.Op_Exec:
		return convertExec(v.Exec)
	case *pb.Op_File:
		return convertFile(v.File, len(op.Inputs))
	case *pb.Op_Merge:
		return &graph.Merge{}, nil
	}
	return nil, fmt.Errorf("operation %s is not supported: no Dockerfile of the built-in syntax has it", strings.TrimPrefix(fmt.Sprintf("%T", op.Op), "*pb.Op_"))
}

func convertSource(s *pb.SourceOp) (graph.Op, error) {
	scheme, rest, _ := strings.Cut(s.Identifier, "://")
	switch scheme {
	case "docker-image":
		// There is no other place than the registry, so every mode is the same.
		if err := refuseAttributes(s.Identifier, s.Attrs, pb.AttrImageResolveMode); err != nil {
			return nil, err
		}
		return &graph.ImageSource{Ref: rest}, nil
	case "local":
		if err := refuseAttributes(s.Identifier, s.Attrs, pb.AttrIncludePatterns, pb.AttrExcludePatterns, pb.AttrFollowPaths,
			// How a client sends files: there is none.
			pb.AttrLocalSessionID, pb.AttrLocalUniqueID, pb.AttrSharedKeyHint, pb.AttrLocalDiffer); err != nil {
			return nil, err
		}
		l := &graph.LocalSource{Name: rest}
		for attr, list := range map[string]*[]string{
			pb.AttrIncludePatterns: &l.Include,
			pb.AttrExcludePatterns: &l.Exclude,
			pb.AttrFollowPaths:     &l.FollowPaths,
		} {
			if v := s.Attrs[attr]; v != "" {
				if err := json.Unmarshal([]byte(v), list); err != nil {
					return nil, fmt.Errorf("reading %s of %s: %w", attr, s.Identifier, err)
				}
			}
		}
		return l, nil
	case "http", "https":
		if err := refuseAttributes(s.Identifier, s.Attrs, pb.AttrHTTPChecksum, pb.AttrHTTPFilename); err != nil {
			return nil, err
		}
		return &graph.HTTPSource{
			URL:      s.Identifier,
			Checksum: digest.Digest(s.Attrs[pb.AttrHTTPChecksum]),
			Filename: s.Attrs[pb.AttrHTTPFilename],
		}, nil
	case "git":
		return convertGit(rest, s.Attrs)
	case "oci-layout":
		_, root, _ := strings.Cut(rest, "@")
		return &graph.ImageSource{Ref: layoutRef(s.Attrs[pb.AttrOCILayoutStoreID], root)}, nil
	}
	return nil, fmt.Errorf("source %q is not supported", s.Identifier)
}
