package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// sessionID is constant: the front end puts it, or something random without
// it, into every local source, and equal work would look different.
const sessionID = "kaniko-multiarch"

// gateway is what the front end knows of the world: it stands where BuildKit's
// daemon would be.
type gateway struct {
	opts  Options
	attrs map[string]string

	log *warningLog
}

type warningLog struct {
	mu   sync.Mutex
	list []Warning
}

var _ client.Client = (*gateway)(nil)

func newClient(o Options) *gateway {
	return &gateway{opts: o, attrs: o.attributes(), log: &warningLog{}}
}

// run runs the front end, until ctx ends at most. The host of an ADD by ssh is
// asked for its key in there, which nothing else would end.
func (g *gateway) run(ctx context.Context) (*client.Result, error) {
	type answer struct {
		res *client.Result
		err error
	}
	told := make(chan answer, 1)
	go func() {
		res, err := builder.Build(ctx, g)
		told <- answer{res, err}
	}()
	select {
	case a := <-told:
		return a.res, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *gateway) BuildOpts() client.BuildOpts {
	return client.BuildOpts{
		// The front end writes to the map when it follows a syntax line.
		Opts:      maps.Clone(g.attrs),
		SessionID: sessionID,
		Workers:   []client.WorkerInfo{{ID: sessionID, Platforms: []ocispecs.Platform{g.opts.buildPlatform()}}},
		Product:   sessionID,
		LLBCaps:   supported(),
		Caps:      gwpb.Caps.CapSet(gwpb.Caps.All()),
	}
}

// supported is everything: without a capability the front end passes over what
// needs it, or writes it in another way. What our engine cannot do is refused when
// the graph is made.
func supported() apicaps.CapSet { return pb.Caps.CapSet(pb.Caps.All()) }

func (g *gateway) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Frontend != "" {
		return g.solveFrontend(ctx, req)
	}
	res := client.NewResult()
	res.SetRef(&lazyRef{def: req.Definition, gateway: g})
	return res, nil
}

// solveFrontend answers a syntax line. Ours is the only front end here, and it
// is the newest docker/dockerfile.
func (g *gateway) solveFrontend(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	source := req.FrontendOpt["source"]
	if req.Frontend != "gateway.v0" || !isDockerfileFrontend(source) {
		return nil, &UnsupportedFrontendError{Source: source}
	}
	again := *g
	again.attrs = maps.Clone(g.attrs)
	again.attrs["cmdline"] = req.FrontendOpt["cmdline"]
	return builder.Build(ctx, &again)
}

func isDockerfileFrontend(source string) bool {
	named, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return false
	}
	switch named.Name() {
	case "docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream":
		return true
	}
	return false
}

func (g *gateway) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	if opt.OCILayoutOpt != nil {
		return g.layoutConfig(ctx, ref, *opt.OCILayoutOpt)
	}
	p := g.opts.buildPlatform()
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		p = *opt.ImageOpt.Platform
	}
	dgst, config, err := g.opts.Images.ImageConfig(ctx, ref, p)
	if err != nil {
		return "", "", nil, err
	}
	// Named contexts use the reference as it is returned: without the digest
	// it would be free to move during the build.
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", "", nil, fmt.Errorf("image %q: %w", ref, err)
	}
	pinned, err := reference.WithDigest(reference.TagNameOnly(named), dgst)
	if err != nil {
		return "", "", nil, fmt.Errorf("image %q: %w", ref, err)
	}
	return pinned.String(), dgst, config, nil
}

// layoutConfig finds an image of an OCI layout, whose digest is in ref.
func (g *gateway) layoutConfig(ctx context.Context, ref string, opt sourceresolver.ResolveOCILayoutOpt) (string, digest.Digest, []byte, error) {
	p := g.opts.buildPlatform()
	if opt.Platform != nil {
		p = *opt.Platform
	}
	_, root, _ := strings.Cut(ref, "@")
	dgst, config, err := g.opts.Images.ImageConfig(ctx, layoutRef(opt.Store.StoreID, root), p)
	return ref, dgst, config, err
}

// layoutRef is how an image in an OCI layout is called.
func layoutRef(store, digest string) string { return "oci-layout://" + store + "@" + digest }

func (g *gateway) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	ref, ok := strings.CutPrefix(op.Identifier, "docker-image://")
	if !ok {
		return nil, fmt.Errorf("resolving %s: only images can be resolved here", op.Identifier)
	}
	ref, dgst, config, err := g.ResolveImageConfig(ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	resolved := op.CloneVT()
	resolved.Identifier = "docker-image://" + ref
	return &sourceresolver.MetaResponse{
		Op:    resolved,
		Image: &sourceresolver.ResolveImageResponse{Digest: dgst, Config: config},
	}, nil
}

func (g *gateway) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

func (g *gateway) NewContainer(context.Context, client.NewContainerRequest) (client.Container, error) {
	return nil, errors.New("a Dockerfile front end has no containers of its own")
}

func (g *gateway) Warn(_ context.Context, _ digest.Digest, msg string, opts client.WarnOpts) error {
	w := Warning{Text: msg, URL: opts.URL, File: g.opts.displayName(g.opts.Filename)}
	if opts.SourceInfo != nil {
		w.File = g.opts.displayName(opts.SourceInfo.Filename)
	}
	if len(opts.Range) > 0 {
		w.Line = int(opts.Range[0].Start.Line)
		// The line stands before the text when it is shown.
		w.Text = strings.TrimSuffix(w.Text, fmt.Sprintf(" (line %d)", w.Line))
	}
	for _, d := range opts.Detail {
		w.Detail += string(d)
	}
	g.log.mu.Lock()
	defer g.log.mu.Unlock()
	g.log.list = append(g.log.list, w)
	return nil
}

// warnings are sorted, since stages are converted concurrently.
func (g *gateway) warnings() []Warning {
	g.log.mu.Lock()
	defer g.log.mu.Unlock()
	slices.SortStableFunc(g.log.list, func(a, b Warning) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Text, b.Text)
	})
	return slices.Compact(g.log.list)
}

// files is the directory that a definition of one local source stands for.
func (g *gateway) files(def *pb.Definition) (fs.FS, error) {
	op, err := soleSource(def)
	if err != nil {
		return nil, err
	}
	name, ok := strings.CutPrefix(op.Identifier, "local://")
	if !ok {
		return nil, fmt.Errorf("%s cannot be read while the Dockerfile is loaded: use a directory as the context", op.Identifier)
	}
	if name == "dockerfile" {
		return g.opts.Dockerfile, nil
	}
	dir, ok := g.opts.Contexts[name]
	if !ok {
		return nil, fmt.Errorf("there is no context %q", name)
	}
	return dir, nil
}

// soleSource returns the source of a definition that has nothing else.
func soleSource(def *pb.Definition) (*pb.SourceOp, error) {
	for _, dt := range def.GetDef() {
		var op pb.Op
		if err := op.UnmarshalVT(dt); err != nil {
			return nil, fmt.Errorf("reading a definition: %w", err)
		}
		switch v := op.Op.(type) {
		case nil: // the end of the list
		case *pb.Op_Source:
			return v.Source, nil
		default:
			return nil, errors.New("the front end asks for a file that a step makes: use a directory as the context")
		}
	}
	return nil, errors.New("the front end asks for a file of an empty tree")
}

// lazyRef is a definition whose files can be read when they are a context's.
type lazyRef struct {
	def     *pb.Definition
	gateway *gateway
}

var _ client.Reference = (*lazyRef)(nil)

func (r *lazyRef) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

func (r *lazyRef) Evaluate(context.Context) error { return nil }

func (r *lazyRef) ReadFile(_ context.Context, req client.ReadRequest) ([]byte, error) {
	dir, err := r.gateway.files(r.def)
	if err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(dir, clean(req.Filename))
	if err != nil {
		return nil, err
	}
	if req.Range != nil {
		data = data[min(req.Range.Offset, len(data)):]
		if req.Range.Length > 0 {
			data = data[:min(req.Range.Length, len(data))]
		}
	}
	return data, nil
}

func (r *lazyRef) StatFile(_ context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	dir, err := r.gateway.files(r.def)
	if err != nil {
		return nil, err
	}
	info, err := fs.Stat(dir, clean(req.Path))
	if err != nil {
		return nil, err
	}
	return stat(req.Path, info), nil
}

func (r *lazyRef) ReadDir(_ context.Context, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	dir, err := r.gateway.files(r.def)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(dir, clean(req.Path))
	if err != nil {
		return nil, err
	}
	var list []*fstypes.Stat
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		list = append(list, stat(e.Name(), info))
	}
	return list, nil
}

func stat(name string, info fs.FileInfo) *fstypes.Stat {
	return &fstypes.Stat{Path: name, Mode: uint32(info.Mode()), Size: info.Size(), ModTime: info.ModTime().UnixNano()}
}

// clean makes a path of the front end one of fs.FS, which has no leading slash.
func clean(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name != "" {
		return name
	}
	return "."
}
