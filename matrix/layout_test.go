package matrix_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/matrix"
)

// steps answers for a Dockerfile: on is "host", "target", "none" or a platform.
func steps(on ...string) func(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
	return func(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
		var out []ocispecs.Platform
		for _, where := range on {
			switch where {
			case "host":
				out = append(out, host)
			case "target":
				out = append(out, p)
			default:
				one, err := platform.Parse(where)
				if err != nil {
					return nil, err
				}
				out = append(out, one)
			}
		}
		return out, nil
	}
}

func TestRows_distribute(t *testing.T) {
	t.Parallel()
	unknown := func(_, _ ocispecs.Platform) ([]ocispecs.Platform, error) { return nil, matrix.ErrUnknown }
	noSource := func(_, _ ocispecs.Platform) ([]ocispecs.Platform, error) { return nil, matrix.ErrNoSource }
	mixed := func(_, p ocispecs.Platform) ([]ocispecs.Platform, error) {
		if p.Architecture == "s390x" {
			return []ocispecs.Platform{p}, nil
		}
		return nil, nil
	}
	for name, test := range map[string]struct {
		distribute         matrix.Distribute
		platforms, runners string
		stepsOn            func(host, p ocispecs.Platform) ([]ocispecs.Platform, error)
		// want are platform, slug, runner and mode of the rows.
		want []string
	}{
		"auto_without_a_look":        {"", "amd64,arm64", "", nil, []string{"linux/amd64 linux-amd64 ubuntu-24.04 native", "linux/arm64 linux-arm64 ubuntu-24.04-arm native"}},
		"auto_runs_on_target":        {"", "amd64,arm64", "", steps("target"), []string{"linux/amd64 linux-amd64 ubuntu-24.04 native", "linux/arm64 linux-arm64 ubuntu-24.04-arm native"}},
		"auto_cross":                 {"auto", "amd64,arm64,s390x", "", steps("host"), []string{"linux/amd64,linux/arm64,linux/s390x shared ubuntu-24.04 cross"}},
		"auto_no_step":               {"auto", "arm64,s390x", "", steps(), []string{"linux/arm64,linux/s390x shared ubuntu-24.04 cross"}},
		"auto_cross_on_arm":          {"auto", "amd64,arm64", "default=ubuntu-24.04-arm", steps("host"), []string{"linux/amd64,linux/arm64 shared ubuntu-24.04-arm cross"}},
		"auto_386_stays_apart":       {"auto", "amd64,386,arm64", "", steps("host"), []string{"linux/amd64,linux/arm64 shared ubuntu-24.04 cross", "linux/386 linux-386 ubuntu-24.04 native"}},
		"auto_one_cross_alone":       {"auto", "arm64", "", steps("host"), []string{"linux/arm64 linux-arm64 ubuntu-24.04-arm native"}},
		"auto_unknown":               {"auto", "amd64,arm64,s390x", "", unknown, []string{"linux/amd64 linux-amd64 ubuntu-24.04 native", "linux/arm64 linux-arm64 ubuntu-24.04-arm native", "linux/s390x linux-s390x ubuntu-24.04 qemu"}},
		"auto_no_source":             {"auto", "amd64,arm64", "", noSource, []string{"linux/amd64 linux-amd64 ubuntu-24.04 native", "linux/arm64 linux-arm64 ubuntu-24.04-arm native"}},
		"auto_runs_on_a_third":       {"auto", "amd64,arm64", "", steps("linux/s390x"), []string{"linux/amd64 linux-amd64 ubuntu-24.04 qemu", "linux/arm64 linux-arm64 ubuntu-24.04-arm native"}},
		"always":                     {matrix.DistributeAlways, "amd64,s390x", "", steps("host"), []string{"linux/amd64 linux-amd64 ubuntu-24.04 native", "linux/s390x linux-s390x ubuntu-24.04 cross"}},
		"never":                      {matrix.DistributeNever, "amd64,arm64", "", steps("target"), []string{"linux/amd64,linux/arm64 all ubuntu-24.04 qemu"}},
		"never_cross":                {matrix.DistributeNever, "amd64,arm64", "", steps("host"), []string{"linux/amd64,linux/arm64 all ubuntu-24.04 cross"}},
		"never_native":               {matrix.DistributeNever, "amd64,386", "", nil, []string{"linux/amd64,linux/386 all ubuntu-24.04 native"}},
		"never_mixed":                {matrix.DistributeNever, "s390x,arm64", "", mixed, []string{"linux/s390x,linux/arm64 all ubuntu-24.04 qemu"}},
		"auto_mixed":                 {"", "s390x,arm64,amd64", "", mixed, []string{"linux/s390x linux-s390x ubuntu-24.04 qemu", "linux/arm64,linux/amd64 shared ubuntu-24.04 cross"}},
		"never_of_one":               {matrix.DistributeNever, "arm64", "", nil, []string{"linux/arm64 linux-arm64 ubuntu-24.04-arm native"}},
		"never_without_a_default":    {matrix.DistributeNever, "arm64,armhf", "linux/arm64=a", nil, []string{"linux/arm64,linux/arm/v7 all ubuntu-24.04 qemu"}},
		"arm_v7_not_native_on_arm64": {"auto", "arm64,armhf", "default=ubuntu-24.04-arm", steps("target"), []string{"linux/arm64 linux-arm64 ubuntu-24.04-arm native", "linux/arm/v7 linux-arm-v7 ubuntu-24.04-arm qemu"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := matrix.New(matrix.Options{
				Images:     []matrix.Image{{Image: "app", Platforms: platforms(t, test.platforms), StepsOn: test.stepsOn}},
				Runners:    runners(t, test.runners),
				Defaults:   matrix.GitHubRunners(),
				Distribute: test.distribute,
			})
			assert.NilError(t, err)
			var got []string
			for _, r := range plan.Matrix.Include {
				got = append(got, fmt.Sprintf("%s %s %s %s", r.Platform, r.Slug, r.Runner.Text(), r.Mode))
				assert.Check(t, is.Equal(r.Artifact, "kma-"+plan.Key+"-"+r.Slug))
				assert.Check(t, is.Equal(r.OS, "linux"))
				assert.Check(t, is.Equal(r.QEMU, r.Mode == matrix.QEMU))
			}
			assert.DeepEqual(t, got, test.want)
			assert.Equal(t, len(strings.Split(plan.Platforms, ",")), len(strings.Split(test.platforms, ",")))
		})
	}
}

// A look that fails costs the patience of all retries: convenience has one.
func TestNew_looks_once(t *testing.T) {
	t.Parallel()
	looks := 0
	img := matrix.Image{Image: "app", Platforms: platforms(t, "amd64,arm64,386"), StepsOn: func(_, _ ocispecs.Platform) ([]ocispecs.Platform, error) {
		looks++
		return nil, fmt.Errorf("registry: %w", matrix.ErrUnknown)
	}}
	plan, err := matrix.New(matrix.Options{Images: []matrix.Image{img}, Defaults: matrix.GitHubRunners()})
	assert.NilError(t, err)
	assert.Equal(t, looks, 1)
	assert.Check(t, is.Len(plan.Notices, 0))
	_, err = matrix.New(matrix.Options{Images: []matrix.Image{img}, Defaults: matrix.GitHubRunners(), CheckBases: matrix.CheckBasesDrop})
	assert.NilError(t, err)
	assert.Equal(t, looks, 2)
}

func TestNew_check_bases(t *testing.T) {
	t.Parallel()
	missing := func(_, p ocispecs.Platform) ([]ocispecs.Platform, error) {
		if p.Architecture == "arm" {
			return nil, &matrix.BaseError{Platform: p, Err: errors.New("alpine has no image for linux/arm/v7")}
		}
		return []ocispecs.Platform{p}, nil
	}
	unknown := func(_, _ ocispecs.Platform) ([]ocispecs.Platform, error) { return nil, matrix.ErrUnknown }
	for name, test := range map[string]struct {
		check     matrix.CheckBases
		platforms string
		stepsOn   func(host, p ocispecs.Platform) ([]ocispecs.Platform, error)
		want      string
		notice    string
		fails     string
	}{
		"error":       {matrix.CheckBasesError, "amd64,armhf", missing, "", "", "alpine has no image for linux/arm/v7"},
		"drop":        {matrix.CheckBasesDrop, "amd64,armhf,arm64", missing, "linux/amd64,linux/arm64", "left out linux/arm/v7 of docker.io/library/app: alpine", ""},
		"drop_all":    {matrix.CheckBasesDrop, "armhf", missing, "", "left out linux/arm/v7", ""},
		"not_asked":   {"", "amd64,arm64", nil, "linux/amd64,linux/arm64", "", ""},
		"seen_anyway": {"", "armhf", missing, "", "", "alpine has no image"},
		"unknown":     {matrix.CheckBasesDrop, "amd64", unknown, "linux/amd64", "are not checked", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := matrix.New(matrix.Options{
				Images:   []matrix.Image{{Image: "app", Platforms: platforms(t, test.platforms), StepsOn: test.stepsOn}},
				Defaults: matrix.GitHubRunners(), CheckBases: test.check,
			})
			if test.fails != "" {
				assert.ErrorContains(t, err, test.fails)
				var base *matrix.BaseError
				assert.Check(t, errors.As(err, &base))
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, plan.Platforms, test.want)
			assert.Equal(t, plan.Empty, test.want == "")
			assert.Check(t, is.Contains(strings.Join(plan.Notices, "\n"), test.notice))
		})
	}
}

func TestPlan_formats(t *testing.T) {
	t.Parallel()
	plan, err := matrix.New(matrix.Options{
		Images: []matrix.Image{
			{Tags: []string{"r.example/app:1", "r.example/app:2"}, Target: "web", Key: "app", Context: "it's", Dockerfile: "a/Dockerfile", BuildArgs: []string{"A=$B", "C=d"}, Platforms: platforms(t, "amd64,arm64")},
			{Image: "r.example/tool", Key: "tool", Context: ".", Platforms: platforms(t, "amd64")},
		},
		Runners: runners(t, `linux/arm64=["self-hosted","arm64"]`), Defaults: matrix.GitLabRunners(),
	})
	assert.NilError(t, err)
	var b strings.Builder
	assert.NilError(t, plan.WriteTree(&b))
	assert.Equal(t, b.String(), `app  r.example/app:1, r.example/app:2
├── linux/amd64  native  saas-linux-small-amd64
└── linux/arm64  native  self-hosted,arm64
tool  r.example/tool
└── linux/amd64  native  saas-linux-small-amd64
`)
	b.Reset()
	assert.NilError(t, plan.WritePlain(&b))
	assert.Equal(t, strings.SplitN(b.String(), "\n", 2)[0], "linux/amd64\tnative\tsaas-linux-small-amd64\tr.example/app\tweb\tapp\tkma-app-linux-amd64")
	b.Reset()
	assert.NilError(t, plan.WriteJenkins(&b))
	var jenkins struct {
		Matrix struct {
			Include []struct{ Runner, Platform, Dockerfile, BuildArgs string }
		}
		Count int
	}
	assert.NilError(t, json.Unmarshal([]byte(b.String()), &jenkins))
	assert.Equal(t, jenkins.Matrix.Include[1].Runner, "self-hosted && arm64")
	assert.Equal(t, jenkins.Matrix.Include[1].Platform, "linux/arm64")
	assert.Equal(t, jenkins.Matrix.Include[0].BuildArgs, "A=$B\nC=d")
	assert.Equal(t, jenkins.Count, 3)
	b.Reset()
	assert.NilError(t, plan.WriteGitLab(&b, matrix.GitLab{JobImage: "r.example/kma:1", BuildArguments: []string{"--cache=true"}}))
	assert.Equal(t, b.String(), goldenGitLab)

	grouped, err := matrix.New(matrix.Options{Images: []matrix.Image{{Image: "app", Platforms: platforms(t, "amd64")}}, Runners: runners(t, `{"group":"g"}`)})
	assert.NilError(t, err)
	assert.ErrorContains(t, grouped.WriteGitLab(&b, matrix.GitLab{}), "GitLab has tags, no groups")
	assert.ErrorContains(t, grouped.WriteJenkins(&b), "Jenkins has labels, no groups")
	empty, err := matrix.New(matrix.Options{})
	assert.NilError(t, err)
	b.Reset()
	assert.NilError(t, empty.WriteGitLab(&b, matrix.GitLab{}))
	assert.Check(t, is.Contains(b.String(), "nothing to build:"))
	b.Reset()
	assert.NilError(t, empty.WriteTree(&b))
	assert.Equal(t, b.String(), "nothing to build\n")
}

const goldenGitLab = `stages: [build, merge]

"build app linux-amd64":
  stage: build
  image:
    name: "r.example/kma:1"
    entrypoint: [""]
  tags: ["saas-linux-small-amd64"]
  script:
    - "kaniko-multiarch build --platform linux/amd64 --key app --digests-to digests --image r.example/app --target web --context 'it'\\''s' --dockerfile a/Dockerfile --build-arg 'A=$B' --build-arg C=d --cache=true"
  artifacts:
    paths: [digests]
    expire_in: 1 day

"build app linux-arm64":
  stage: build
  image:
    name: "r.example/kma:1"
    entrypoint: [""]
  tags: ["self-hosted", "arm64"]
  script:
    - "kaniko-multiarch build --platform linux/arm64 --key app --digests-to digests --image r.example/app --target web --context 'it'\\''s' --dockerfile a/Dockerfile --build-arg 'A=$B' --build-arg C=d --cache=true"
  artifacts:
    paths: [digests]
    expire_in: 1 day

"build tool linux-amd64":
  stage: build
  image:
    name: "r.example/kma:1"
    entrypoint: [""]
  tags: ["saas-linux-small-amd64"]
  script:
    - "kaniko-multiarch build --platform linux/amd64 --key tool --digests-to digests --image r.example/tool --cache=true"
  artifacts:
    paths: [digests]
    expire_in: 1 day

"merge app":
  stage: merge
  image:
    name: "r.example/kma:1"
    entrypoint: [""]
  needs:
    - "build app linux-amd64"
    - "build app linux-arm64"
  script:
    - "kaniko-multiarch merge --digests-from digests --key app --platform linux/amd64,linux/arm64 --dotenv merge.env --destination r.example/app:1,r.example/app:2"
  artifacts:
    reports:
      dotenv: merge.env

"merge tool":
  stage: merge
  image:
    name: "r.example/kma:1"
    entrypoint: [""]
  needs:
    - "build tool linux-amd64"
  script:
    - "kaniko-multiarch merge --digests-from digests --key tool --platform linux/amd64 --dotenv merge.env --destination r.example/tool"
  artifacts:
    reports:
      dotenv: merge.env
`
