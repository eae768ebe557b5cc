// Package matrix turns "these images for these platforms" into the rows of a CI
// job matrix, and into what the jobs that merge the results need to know.
//
// It must not know how an image is built; whether a platform's build would run
// anything of that platform is told to it. It does not link the build engine.
package matrix

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
)

// Options say what is built and on which runners.
type Options struct {
	// Images, each of which ends in an index of its own. No image is an empty
	// matrix, not an error.
	Images []Image
	// Runners are the user's, Defaults those of the CI system, which answer
	// where the user's have nothing.
	Runners, Defaults Runners
	// Kubernetes is set when the cluster builds and the runner only waits.
	Kubernetes bool
	Distribute Distribute
	CheckBases CheckBases
	// Limit is how many rows System takes in one matrix; 0 is no limit.
	Limit  int
	System string
}

// Distribute decides about jobs that build for several platforms.
type Distribute string

const (
	// DistributeAuto, also the empty value, gives one job to the platforms that
	// no step runs on, and to that of the runner they share: what their builds
	// have in common then runs once. Every other platform gets a job of its own.
	DistributeAuto Distribute = "auto"
	// DistributeAlways gives every platform a job.
	DistributeAlways Distribute = "always"
	// DistributeNever gives every image one job for all its platforms, on the
	// default runner.
	DistributeNever Distribute = "never"
)

// CheckBases decides about platforms that a base image does not exist for. The
// empty value looks only at the Dockerfiles that have to be read anyway.
type CheckBases string

const (
	// CheckBasesError fails.
	CheckBasesError CheckBases = "error"
	// CheckBasesDrop leaves the platform out, with a notice.
	CheckBasesDrop CheckBases = "drop"
)

// Image is one thing to build.
type Image struct {
	// Image is the repository; empty takes that of the first tag.
	Image string
	// Tags are the full references of the index.
	Tags       []string
	Target     string
	Dockerfile string
	Context    string
	BuildArgs  []string
	// Key is the user's own key; empty means record.Key.
	Key string
	// Platforms in the order of the rows; repeated ones count once.
	Platforms []ocispecs.Platform
	// Label tells the rows of images apart that share name and target.
	Label string
	// StepsOn tells on which platforms the steps run of a build for p on a
	// machine of host. Its errors may wrap ErrUnknown or ErrNoSource, or be a
	// *BaseError. Nil assumes that steps run on p.
	StepsOn func(host, p ocispecs.Platform) ([]ocispecs.Platform, error)
}

// Mode is how a platform gets built.
type Mode string

const (
	// Native: the runner executes programs of the platform.
	Native Mode = "native"
	// Cross: no step runs on the target platform, so that any runner builds it.
	Cross Mode = "cross"
	// QEMU: steps run on the target platform and the runner has to emulate it.
	QEMU Mode = "qemu"
	// Kubernetes: a node of the cluster builds it.
	Kubernetes Mode = "kubernetes"
)

// Row is one job: one image for one platform. Its JSON form is a public
// contract.
type Row struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	Key   string `json:"key"`
	// Platform is a list with commas for a job that builds several; Arch and
	// Variant are empty then, and OS if they do not share one.
	Platform string `json:"platform"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Variant  string `json:"variant"`
	Slug     string `json:"slug"`
	Runner   Runner `json:"runner"`
	Mode     Mode   `json:"mode"`
	// QEMU is Mode as a condition for workflows: set up an emulator or not.
	QEMU   bool   `json:"qemu"`
	Image  string `json:"image"`
	Target string `json:"target"`
	// Context, Dockerfile and BuildArgs (one a line) are left out where they
	// are the defaults.
	Context    string `json:"context,omitempty"`
	Dockerfile string `json:"dockerfile,omitempty"`
	BuildArgs  string `json:"buildArgs,omitempty"`
	// Artifact is the name under which the job hands over its digest record.
	Artifact string `json:"artifact"`
	// Cache separates the caches of platforms.
	Cache string `json:"cache"`
}

// Merge is one index to publish from the records of several rows. Lists are
// text because that is what the inputs of a CI job are.
type Merge struct {
	Key    string `json:"key"`
	Image  string `json:"image"`
	Target string `json:"target"`
	// Tags and Platforms are separated by commas.
	Tags      string `json:"tags"`
	Platforms string `json:"platforms"`
	// Artifacts is a pattern of names that matches the artifacts of this key
	// and no other's.
	Artifacts string `json:"artifacts"`
}

// Document is the form that CI systems take a matrix in.
type Document[T any] struct {
	Include []T `json:"include"`
}

// Plan is everything that the matrix command answers.
type Plan struct {
	Matrix Document[Row]   `json:"matrix"`
	Merges Document[Merge] `json:"merges"`
	// Platforms, Key and Artifacts are those of the only merge, and empty
	// when there are several.
	Platforms string `json:"platforms"`
	Key       string `json:"key"`
	Artifacts string `json:"artifacts"`
	Count     int    `json:"count"`
	Empty     bool   `json:"empty"`
	// Notices are worth a line in the log.
	Notices []string `json:"-"`
}

// Rows returns one row for each platform of each image, in the given order.
// The same options give the same rows.
func Rows(opts Options) ([]Row, error) {
	plan, err := New(opts)
	if err != nil {
		return nil, err
	}
	return plan.Matrix.Include, nil
}

// New computes the plan. The same options give the same plan.
func New(opts Options) (*Plan, error) {
	plan := &Plan{Matrix: Document[Row]{Include: []Row{}}, Merges: Document[Merge]{Include: []Merge{}}}
	images := slices.Clone(opts.Images)
	for i := range images {
		if err := images[i].complete(); err != nil {
			return nil, err
		}
	}
	if err := distinct(images); err != nil {
		return nil, err
	}
	labels := rowLabels(images)
	for i, img := range images {
		l := layouter{opts: opts, img: img}
		rows, err := l.rows()
		plan.Notices = append(plan.Notices, l.notices...)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			continue
		}
		var names, slugs []string
		for _, row := range rows {
			row.Index = len(plan.Matrix.Include)
			row.Name = labels[i] + row.Platform
			plan.Matrix.Include = append(plan.Matrix.Include, row)
			slugs = append(slugs, row.Slug)
		}
		for _, p := range l.img.Platforms {
			names = append(names, platform.Format(p))
		}
		plan.Merges.Include = append(plan.Merges.Include, Merge{
			Key: img.Key, Image: img.Image, Target: img.Target,
			Tags: strings.Join(img.Tags, ","), Platforms: strings.Join(names, ","), Artifacts: img.artifacts(slugs),
		})
	}
	if merges := plan.Merges.Include; len(merges) == 1 {
		plan.Platforms, plan.Key, plan.Artifacts = merges[0].Platforms, merges[0].Key, merges[0].Artifacts
	}
	plan.Count = len(plan.Matrix.Include)
	plan.Empty = plan.Count == 0
	if opts.Limit > 0 && plan.Count > opts.Limit {
		return nil, fmt.Errorf("the matrix has %d rows, %s takes %d: give an image one job for all its platforms (distribute=never), or split the images between several matrices",
			plan.Count, opts.System, opts.Limit)
	}
	return plan, nil
}

// distinct refuses images that would overwrite each other.
func distinct(images []Image) error {
	tags := map[string]Image{}
	for i, img := range images {
		for _, other := range images[:i] {
			if other.Key == img.Key {
				return fmt.Errorf("two images have key %s (%s and %s): give each its own", other.Key, other.describe(), img.describe())
			}
		}
		for _, tag := range img.Tags {
			if other, ok := tags[tag]; ok {
				return fmt.Errorf("two images would be published as %s (%s and %s): give each its own tags, for example with the {NAME} of a dimension", tag, other.describe(), img.describe())
			}
			tags[tag] = img
		}
	}
	return nil
}

// WriteJSON writes the plan as one line of JSON.
func (p *Plan) WriteJSON(w io.Writer) error {
	return json.NewEncoder(w).Encode(p)
}

// complete normalises names and platforms and fills in what follows from them.
func (img *Image) complete() error {
	tags := []string{}
	for _, tag := range img.Tags {
		named, err := parseName(tag)
		if err != nil {
			return err
		}
		img.Image = cmp.Or(img.Image, named.Name())
		if name := named.String(); !slices.Contains(tags, name) {
			tags = append(tags, name)
		}
	}
	img.Tags = tags
	if img.Image != "" {
		named, err := parseName(img.Image)
		if err != nil {
			return err
		}
		if !reference.IsNameOnly(named) {
			return fmt.Errorf("image %q: give the repository without tag or digest; tags have a place of their own", img.Image)
		}
		img.Image = named.Name()
	}
	for _, arg := range img.BuildArgs {
		if name, _, _ := strings.Cut(arg, "="); strings.ContainsAny(arg, "\r\n") {
			return fmt.Errorf("build argument %s of %s has several lines, and rows have an argument a line: put the text into a file of the context", name, img.describe())
		}
	}
	var list []ocispecs.Platform
	for _, p := range img.Platforms {
		p = platform.Normalize(p)
		if !slices.ContainsFunc(list, func(q ocispecs.Platform) bool { return platform.Equal(p, q) }) {
			list = append(list, p)
		}
	}
	img.Platforms = list
	if img.Key != "" {
		return record.ValidKey(img.Key)
	}
	img.Key = img.defaultKey()
	return nil
}

func (img Image) defaultKey() string {
	return record.Key(record.Identity{
		Image: img.Image, Tags: img.Tags, Target: img.Target,
		Dockerfile: img.Dockerfile, Context: img.Context, BuildArgs: img.BuildArgs,
	})
}

func (img Image) describe() string {
	s := cmp.Or(img.Image, "an unnamed image")
	if img.Target != "" {
		s += ", target " + img.Target
	}
	if img.Label != "" {
		s += ", " + img.Label
	}
	return s
}

// artifacts is prefix and star when the key is ours: it ends in six digits of a
// hash, so no other key goes on from it. A key of the user's may well be the
// beginning of another (app, app-web), so its artifacts are listed.
func (img Image) artifacts(slugs []string) string {
	if img.Key == img.defaultKey() {
		return artifact(img.Key, "*")
	}
	if len(slugs) == 1 {
		return artifact(img.Key, slugs[0])
	}
	return artifact(img.Key, "{"+strings.Join(slugs, ",")+"}")
}

func artifact(key, slug string) string { return "kma-" + key + "-" + slug }

// rowLabels tells the rows of several images apart: by the last part of the
// name and the target, or by key where that is not enough.
func rowLabels(images []Image) []string {
	labels := make([]string, len(images))
	if len(images) < 2 {
		return labels
	}
	count := map[string]int{}
	for i, img := range images {
		labels[i] = path.Base(img.Image)
		if img.Target != "" {
			labels[i] += "-" + img.Target
		}
		if img.Label != "" {
			labels[i] += " " + img.Label
		}
		count[labels[i]]++
	}
	for i, img := range images {
		if count[labels[i]] > 1 || img.Image == "" {
			labels[i] = img.Key
		}
		labels[i] += " "
	}
	return labels
}

// parseName completes Docker Hub's names and lowers the repository, as names of
// GitHub repositories have capitals and those of images must not.
func parseName(s string) (reference.Named, error) {
	name, rest := s, ""
	if i := strings.Index(name, "@"); i >= 0 {
		name, rest = name[:i], name[i:]
	}
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		name, rest = name[:i], name[i:]+rest
	}
	named, err := reference.ParseNormalizedNamed(strings.ToLower(name) + rest)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w; write it like ghcr.io/acme/app", s, err)
	}
	return named, nil
}
