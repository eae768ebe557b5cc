package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// base is an image with one layer that holds the file "base".
type base struct {
	blob   []byte
	diffID digest.Digest
}

func newBase() base {
	var plain, compressed bytes.Buffer
	tw := tar.NewWriter(&plain)
	_ = tw.WriteHeader(&tar.Header{Name: "base", Size: 4, Mode: 0o644})
	_, _ = tw.Write([]byte("base"))
	_ = tw.Close()
	z := gzip.NewWriter(&compressed)
	_, _ = z.Write(plain.Bytes())
	_ = z.Close()
	return base{compressed.Bytes(), digest.FromBytes(plain.Bytes())}
}

func (b base) ImageConfig(_ context.Context, ref string, p ocispecs.Platform) (digest.Digest, []byte, error) {
	config := fmt.Sprintf(`{"os":%q,"architecture":%q,"config":{},"rootfs":{"type":"layers","diff_ids":[%q]},"history":[{"created":"2001-01-01T00:00:00Z","created_by":"base"}]}`,
		p.OS, p.Architecture, b.diffID)
	return digest.FromString(ref), []byte(config), nil
}

func (b base) BaseImage(context.Context, string, ocispecs.Platform) (*BaseImage, error) {
	return &BaseImage{
		Layers:  []ocispecs.Descriptor{{MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", Digest: digest.FromBytes(b.blob), Size: int64(len(b.blob))}},
		DiffIDs: []digest.Digest{b.diffID},
	}, nil
}

func (b base) OpenLayer(context.Context, string, ocispecs.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b.blob)), nil
}

// memory is a Publisher that keeps everything.
type memory struct {
	mu     sync.Mutex
	blobs  map[digest.Digest][]byte
	bases  int
	images []*Image
	fail   error
}

func newMemory() *memory { return &memory{blobs: map[digest.Digest][]byte{}} }

func (m *memory) BaseLayer(context.Context, string, ocispecs.Descriptor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bases++
	return m.fail
}

func (m *memory) Layer(_ context.Context, d ocispecs.Descriptor, content io.ReaderAt, _ func(int64)) error {
	data, err := io.ReadAll(io.NewSectionReader(content, 0, d.Size))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[d.Digest] = data
	return errors.Join(err, m.fail)
}

func (m *memory) Image(_ context.Context, img *Image) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.images = append(m.images, img)
	return m.fail
}

// layerFiles reads the files of layer i of an image.
func (m *memory) layerFiles(t *testing.T, img *Image, i int) map[string]string {
	t.Helper()
	var manifest ocispecs.Manifest
	assert.NilError(t, json.Unmarshal(img.Manifest, &manifest))
	r, err := layer.Decompress(io.NopCloser(bytes.NewReader(m.blobs[manifest.Layers[i].Digest])))
	assert.NilError(t, err)
	return files(t, r)
}

// events is a Reporter that remembers what was started.
type events struct {
	mu      sync.Mutex
	started []string
	names   map[digest.Digest]string
}

func (e *events) Plan(vertices ...progress.Vertex) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.names == nil {
		e.names = map[digest.Digest]string{}
	}
	for _, v := range vertices {
		e.names[v.ID] = v.Name
	}
}

func (e *events) Start(id digest.Digest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = append(e.started, e.names[id])
}

func (e *events) Done(digest.Digest, bool, error)                  {}
func (e *events) Log(digest.Digest, int) io.Writer                 { return io.Discard }
func (e *events) Status(digest.Digest, string, int64, int64, bool) {}
func (e *events) Warn(progress.Warning)                            {}

// fixture is an engine on plain directories.
type fixture struct {
	*Engine
	t     *testing.T
	store *plainStore
	sent  *memory
	seen  *events
	files fstest.MapFS
}

func newFixture(t *testing.T, steps script) *fixture {
	t.Helper()
	store, sent, seen := newPlainStore(t), newMemory(), &events{}
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("from the context"), 0o644))
	from, err := buildcontext.Open(dir)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = from.Close() })
	var clock atomic.Int64
	return &fixture{t: t, store: store, sent: sent, seen: seen, files: fstest.MapFS{}, Engine: &Engine{
		Store: store, Sandbox: steps, Images: newBase(), Contexts: map[string]Context{"context": from},
		Publisher: sent, Progress: seen, SpoolDir: t.TempDir(),
		Now: func() time.Time { return time.Unix(1_700_000_000+clock.Add(1), 0) },
	}}
}

func (f *fixture) load(dockerfile string, platforms string) *graph.Graph {
	f.t.Helper()
	list, err := platform.ParseList([]string{platforms})
	assert.NilError(f.t, err)
	res, err := frontend.Load(f.t.Context(), frontend.Options{
		Dockerfile: fstest.MapFS{"Dockerfile": {Data: []byte(dockerfile)}}, Filename: "Dockerfile",
		Contexts: map[string]iofs.FS{"context": f.files}, Platforms: list,
		BuildPlatform: &ocispecs.Platform{OS: "linux", Architecture: "amd64"}, Images: newBase(),
	})
	assert.NilError(f.t, err)
	return res.Graph
}

func (f *fixture) build(dockerfile string) (*Image, error) {
	f.t.Helper()
	images, err := f.Build(f.t.Context(), f.load(dockerfile, "linux/amd64"))
	if err != nil {
		return nil, err
	}
	assert.Equal(f.t, f.store.open, 0, "a tree is left open")
	return images[0], nil
}

func TestBuild_image(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{"make": write("made", "x")})
	img, err := f.build("FROM debian\nENV A=b\nRUN make\nCOPY a /copied\nCMD [\"x\"]\n")
	assert.NilError(t, err)

	var manifest ocispecs.Manifest
	assert.NilError(t, json.Unmarshal(img.Manifest, &manifest))
	assert.Check(t, is.Len(manifest.Layers, 3))
	for _, l := range manifest.Layers {
		assert.Check(t, is.Equal(l.MediaType, ocispecs.MediaTypeImageLayerGzip))
	}
	assert.Check(t, is.Equal(img.Descriptor.Digest, digest.FromBytes(img.Manifest)))
	assert.Check(t, is.Equal(manifest.Config.Digest, digest.FromBytes(img.Config)))
	assert.Check(t, is.Equal(img.Reused, 1))
	assert.Check(t, is.Equal(img.Built, 2))
	assert.Check(t, is.Equal(f.sent.layerFiles(t, img, 1)["made"], "x"))
	assert.Check(t, is.Equal(f.sent.layerFiles(t, img, 2)["copied"], "from the context"))

	var config ocispecs.Image
	assert.NilError(t, json.Unmarshal(img.Config, &config))
	assert.Check(t, is.Len(config.RootFS.DiffIDs, 3))
	assert.Check(t, is.Equal(config.RootFS.DiffIDs[0], newBase().diffID))
	var history []string
	for _, h := range config.History {
		assert.Assert(t, h.Created != nil, h.CreatedBy)
		history = append(history, fmt.Sprint(h.CreatedBy, " ", h.EmptyLayer))
	}
	assert.Check(t, is.DeepEqual(history, []string{
		"base false", "ENV A=b true", "RUN /bin/sh -c make # buildkit false", "COPY a /copied # buildkit false", `CMD ["x"] true`,
	}))
	assert.Check(t, is.Equal(config.History[0].Created.Year(), 2001))
	assert.Check(t, config.History[1].Created.Equal(*config.History[2].Created), "an entry before the first layer has its time")
	assert.Check(t, config.Created.Equal(*config.History[4].Created))
}

func TestBuild_shared_stage_runs_once(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	f := newFixture(t, script{
		"compile": func(ctx context.Context, p sandbox.Process) error {
			runs.Add(1)
			return write("out", "x")(ctx, p)
		},
		"target": write("t", "t"),
	})
	images, err := f.Build(t.Context(), f.load(
		"FROM --platform=$BUILDPLATFORM debian AS b\nRUN compile\nFROM debian\nCOPY --from=b /out /out\nRUN target\n", "linux/amd64,linux/arm64,linux/s390x"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(runs.Load(), int32(1)))
	assert.Assert(t, is.Len(images, 3))
	for i, want := range []string{"amd64", "arm64", "s390x"} {
		var config ocispecs.Image
		assert.NilError(t, json.Unmarshal(images[i].Config, &config))
		assert.Check(t, is.Equal(config.Architecture, want))
	}
}

func TestBuild_independent_steps_run_together(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup
	both.Add(2)
	meet := func(context.Context, sandbox.Process) error {
		both.Done()
		both.Wait() // hangs, and so fails, when the steps run one after the other
		return nil
	}
	f := newFixture(t, script{"one": meet, "two": meet})
	_, err := f.build("FROM debian AS a\nRUN one\nFROM debian AS b\nRUN two\nFROM scratch\nCOPY --from=a /base /a\nCOPY --from=b /base /b\n")
	assert.NilError(t, err)
}

func TestBuild_base_that_nothing_runs_on_is_not_unpacked(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{})
	img, err := f.build("FROM debian\nENV A=b\n")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(f.store.bases, 0))
	assert.Check(t, is.Equal(img.Reused, 1))
	assert.Check(t, is.Equal(f.sent.bases, 1))
}

func TestBuild_failing_step(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{
		"bad": func(context.Context, sandbox.Process) error { return &sandbox.ExitError{Code: 3} },
		"slow": func(ctx context.Context, _ sandbox.Process) error {
			<-ctx.Done()
			return ctx.Err()
		},
	})
	_, err := f.build("FROM debian AS a\nRUN slow\nFROM debian\nRUN bad\nCOPY --from=a /base /x\n")
	var step *StepError
	assert.Assert(t, errors.As(err, &step), "%v", err)
	assert.Check(t, is.Equal(step.Location.Start, 4))
	var exit *sandbox.ExitError
	assert.Assert(t, errors.As(err, &exit))
	assert.Check(t, is.Equal(exit.Code, 3))
	assert.Check(t, is.Len(f.sent.images, 0))
	assert.Check(t, is.Equal(f.store.open, 0), "a tree is left open")
}

func TestBuild_cancel(t *testing.T) {
	t.Parallel()
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	f := newFixture(t, script{"slow": func(ctx context.Context, _ sandbox.Process) error {
		cancel(why)
		<-ctx.Done()
		return ctx.Err()
	}})
	_, err := f.Build(ctx, f.load("FROM debian\nRUN slow\nRUN never\n", "linux/amd64"))
	assert.ErrorIs(t, err, why)
}

func TestBuild_publisher_fails(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{
		"make": write("made", "x"),
		"slow": func(ctx context.Context, _ sandbox.Process) error {
			<-ctx.Done() // hangs, and so fails, when the steps are not cancelled
			return ctx.Err()
		},
	})
	f.sent.fail = errors.New("denied")
	_, err := f.build("FROM debian\nRUN make\nRUN slow\n")
	assert.ErrorContains(t, err, "denied")
	assert.Check(t, is.Len(f.sent.images, 0))
}

func TestBuild_mounts(t *testing.T) {
	t.Parallel()
	var mounts []sandbox.Mount
	var env []string
	f := newFixture(t, script{"look": func(_ context.Context, p sandbox.Process) error {
		mounts, env = p.Mounts, p.Env
		data, err := os.ReadFile(p.Mounts[0].Source)
		assert.Check(t, err)
		assert.Check(t, is.Equal(string(data), "from the context"))
		return nil
	}})
	f.Secrets = map[string][]byte{"key": []byte("hidden")}
	_, err := f.build(`FROM debian
RUN --mount=type=bind,source=a,target=/m --mount=type=tmpfs,target=/t,size=1m --mount=type=secret,id=key,mode=0444 --mount=type=secret,id=key,env=KEY --mount=type=secret,id=none look
`)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(mounts, 3))
	assert.Check(t, mounts[0].ReadOnly)
	assert.Check(t, is.DeepEqual(mounts[1], sandbox.Mount{Dest: "/t", Size: 1 << 20}))
	assert.Check(t, is.DeepEqual(mounts[2], sandbox.Mount{Dest: "/run/secrets/key", ReadOnly: true, File: &sandbox.File{Data: []byte("hidden"), Mode: 0o444}}))
	assert.Check(t, slices.Contains(env, "KEY=hidden"))
}

func TestBuild_what_cannot_be_mounted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, flags, want string }{
		{"missing_secret", "--mount=type=secret,id=x,required=true", `secret "x" is required`},
		{"missing_secret_env", "--mount=type=secret,id=x,env=X,required=true", `secret "x" is required`},
		{"missing_source", "--mount=type=bind,source=nope,target=/m", `"/nope": not found`},
		{"escaping_source", "--mount=type=bind,source=../../../../etc/passwd,target=/m", `not found`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, script{"true": func(context.Context, sandbox.Process) error {
				t.Error("the step ran")
				return nil
			}})
			_, err := f.build("FROM debian\nRUN " + tc.flags + " true\n")
			assert.ErrorContains(t, err, tc.want)
			assert.ErrorContains(t, err, "Dockerfile:2")
			assert.Check(t, is.Equal(f.store.open, 0), "a tree is left open")
		})
	}
}

func TestBuild_writable_bind_mount_leaves_nothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{"change": func(_ context.Context, p sandbox.Process) error {
		return os.WriteFile(filepath.Join(p.Mounts[0].Source, "new"), nil, 0o644)
	}})
	img, err := f.build("FROM debian\nRUN --mount=type=bind,rw,target=/m change\nCOPY . /\n")
	assert.NilError(t, err)
	got := f.sent.layerFiles(t, img, 2)
	_, there := got["new"]
	assert.Check(t, !there, "%v", got)
}

func TestBuild_cache_mount(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{
		"fill": func(_ context.Context, p sandbox.Process) error {
			return os.WriteFile(filepath.Join(p.Mounts[0].Source, "kept"), []byte("x"), 0o644)
		},
		"use": func(_ context.Context, p sandbox.Process) error {
			_, err := os.Stat(filepath.Join(p.Mounts[0].Source, "kept"))
			return err
		},
	})
	_, err := f.build("FROM debian\nRUN --mount=type=cache,id=c,target=/c fill\n")
	assert.NilError(t, err)
	_, err = f.build("FROM debian\nRUN --mount=type=cache,id=c,target=/elsewhere,sharing=locked use\n")
	assert.NilError(t, err)
	_, err = f.build("FROM debian\nRUN --mount=type=cache,id=other,target=/c use\n")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestBuild_cache_mount_from_a_stage(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{"use": func(_ context.Context, p sandbox.Process) error {
		data, err := os.ReadFile(filepath.Join(p.Mounts[0].Source, "base"))
		assert.Check(t, is.Equal(string(data), "base"))
		return err
	}})
	_, err := f.build("FROM debian AS b\nFROM debian\nRUN --mount=type=cache,from=b,target=/c use\n")
	assert.NilError(t, err)
}

func TestCopyDir(t *testing.T) {
	t.Parallel()
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "new")
	assert.NilError(t, os.Mkdir(filepath.Join(src, "sub"), 0o750))
	assert.NilError(t, os.WriteFile(filepath.Join(src, "sub/f"), []byte("x"), 0o640))
	assert.NilError(t, os.Chmod(src, 0o710|os.ModeSetgid))
	assert.NilError(t, copyDir(t.Context(), src, dst))
	for name, want := range map[string]os.FileMode{"": os.ModeDir | os.ModeSetgid | 0o710, "sub": os.ModeDir | 0o750, "sub/f": 0o640} {
		info, err := os.Stat(filepath.Join(dst, name))
		assert.NilError(t, err)
		assert.Check(t, is.Equal(info.Mode(), want), name)
	}
	assert.ErrorContains(t, copyDir(t.Context(), filepath.Join(src, "sub/f"), dst+"2"), "not a directory")
}

func TestBuild_cache_sharing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sharing string
		same    bool
		alone   bool
	}{{"shared", true, false}, {"private", false, false}, {"locked", true, true}} {
		t.Run(tc.sharing, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var together sync.WaitGroup
			together.Add(2)
			used := map[string]bool{}
			inside := 0
			step := func(_ context.Context, p sandbox.Process) error {
				mu.Lock()
				used[p.Mounts[0].Source] = true
				inside++
				assert.Check(t, !tc.alone || inside == 1)
				mu.Unlock()
				if !tc.alone {
					together.Done()
					together.Wait() // hangs when one waits for the other
				}
				mu.Lock()
				inside--
				mu.Unlock()
				return nil
			}
			f := newFixture(t, script{"one": step, "two": step})
			mount := "RUN --mount=type=cache,id=c,target=/c,sharing=" + tc.sharing
			_, err := f.build("FROM debian AS a\n" + mount + " one\nFROM debian\n" + mount + " two\nCOPY --from=a /base /x\n")
			assert.NilError(t, err)
			assert.Check(t, is.Equal(len(used) == 1, tc.same), "%v", used)
		})
	}
}

func TestBuild_link_is_a_layer_of_its_own(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{})
	img, err := f.build("FROM debian\nCOPY --link a /x/a\n")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(f.store.bases, 0), "the base was unpacked")
	assert.Check(t, is.DeepEqual(f.sent.layerFiles(t, img, 1), map[string]string{"x/a": "from the context"}))
}

func TestBuild_missing_source(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{})
	_, err := f.build("FROM debian\nCOPY nope /\n")
	assert.ErrorContains(t, err, `Dockerfile:2`)
	assert.ErrorContains(t, err, `"/nope": not found`)
}

func TestBuild_times(t *testing.T) {
	t.Parallel()
	const dockerfile = "FROM debian\nCOPY a /a\n"
	limit := int64(1_000_000_000) // 2001-09-09
	manifests := map[digest.Digest]bool{}
	for range 2 {
		f := newFixture(t, script{})
		f.Epoch, f.RewriteTimes = &limit, true
		img, err := f.build(dockerfile)
		assert.NilError(t, err)
		manifests[img.Descriptor.Digest] = true
		var config ocispecs.Image
		assert.NilError(t, json.Unmarshal(img.Config, &config))
		assert.Check(t, is.Equal(config.Created.Unix(), limit))
		assert.Check(t, is.Equal(config.History[0].Created.Year(), 2001))
		assert.Check(t, config.History[0].Created.Unix() < limit, "the base's times stay")
		assert.Check(t, is.Equal(config.History[1].Created.Unix(), limit))
	}
	assert.Check(t, is.Len(manifests, 1))
}

// file is a Downloader.
type file string

func (f file) Download(_ context.Context, _ string, to *os.File, report func(int64, int64)) (string, time.Time, error) {
	report(int64(len(f)), int64(len(f)))
	_, err := to.WriteString(string(f))
	return `attachment; filename="../named"`, time.Unix(5, 0), err
}

func TestBuild_add_url(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{})
	f.Download = file("text")
	img, err := f.build("FROM scratch\nADD --checksum=" + digest.FromString("text").String() + " https://example.com/x /\n")
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(f.sent.layerFiles(t, img, 0), map[string]string{"x": "text"}))

	_, err = f.build("FROM scratch\nADD --checksum=" + digest.FromString("other").String() + " https://example.com/x /\n")
	assert.ErrorContains(t, err, "https://example.com/x has digest "+digest.FromString("text").String())
}

func TestHTTPName(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ filename, disposition, url, want string }{
		{"set", "attachment; filename=x", "https://h/y", "set"},
		{"", "attachment; filename=x", "https://h/y", "x"},
		{"", `attachment; filename="../../etc/passwd"`, "https://h/y", "passwd"},
		{"", "", "https://h/a/b.tgz?sig=1", "b.tgz"},
		{"", "", "https://h/", "download"},
		{"..", "", "https://h/..", "download"},
	} {
		got := httpName(&graph.HTTPSource{URL: tc.url, Filename: tc.filename}, tc.disposition)
		assert.Check(t, is.Equal(got, tc.want), strings.TrimSpace(tc.url))
	}
}

// A base without history, an image's or a directory, has its entries below those
// of the Dockerfile.
func TestHistory_of_a_base_without(t *testing.T) {
	t.Parallel()
	at := time.Unix(7, 0).UTC()
	b := &build{Engine: &Engine{}}
	list := []ocispecs.History{{CreatedBy: "COPY"}, {CreatedBy: "ENV", EmptyLayer: true}}
	got, err := b.history(list, []*time.Time{nil, &at, &at})
	assert.NilError(t, err)
	var by []string
	for _, h := range got {
		by = append(by, h.CreatedBy)
	}
	assert.Check(t, is.DeepEqual(by, []string{"", "", "COPY", "ENV"}))
	_, err = b.history(list, nil)
	assert.Check(t, is.ErrorContains(err, "the history of the config has 1 layers, the image has 0"))
}
