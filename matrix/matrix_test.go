package matrix_test

import (
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/matrix"
)

const goldenPlan = `{"matrix":{"include":[` +
	`{"name":"linux/amd64","index":0,"key":"app","platform":"linux/amd64","os":"linux","arch":"amd64","variant":"","slug":"linux-amd64","runner":"ubuntu-24.04","mode":"native","qemu":false,"image":"ghcr.io/acme/app","target":"","artifact":"kma-app-linux-amd64","cache":"linux-amd64"},` +
	`{"name":"linux/arm64","index":1,"key":"app","platform":"linux/arm64","os":"linux","arch":"arm64","variant":"","slug":"linux-arm64","runner":"ubuntu-24.04-arm","mode":"native","qemu":false,"image":"ghcr.io/acme/app","target":"","artifact":"kma-app-linux-arm64","cache":"linux-arm64"},` +
	`{"name":"linux/arm/v7","index":2,"key":"app","platform":"linux/arm/v7","os":"linux","arch":"arm","variant":"v7","slug":"linux-arm-v7","runner":"ubuntu-24.04","mode":"qemu","qemu":true,"image":"ghcr.io/acme/app","target":"","artifact":"kma-app-linux-arm-v7","cache":"linux-arm-v7"}` +
	`]},"merges":{"include":[{"key":"app","image":"ghcr.io/acme/app","target":"","tags":"ghcr.io/acme/app:V1,ghcr.io/acme/app:latest","platforms":"linux/amd64,linux/arm64,linux/arm/v7","artifacts":"kma-app-{linux-amd64,linux-arm64,linux-arm-v7}"}]},` +
	`"platforms":"linux/amd64,linux/arm64,linux/arm/v7","key":"app","artifacts":"kma-app-{linux-amd64,linux-arm64,linux-arm-v7}","count":3,"empty":false}
`

func TestNew_golden(t *testing.T) {
	t.Parallel()
	opts := matrix.Options{
		Images: []matrix.Image{{
			Tags: []string{"ghcr.io/Acme/App:V1", "ghcr.io/acme/app:latest", "ghcr.io/acme/app:V1"}, Key: "app",
			Platforms: platforms(t, "linux/amd64,linux/arm64/v8,linux/arm,linux/arm64"),
		}},
		Defaults: matrix.GitHubRunners(),
	}
	for range 3 {
		plan, err := matrix.New(opts)
		assert.NilError(t, err)
		var b strings.Builder
		assert.NilError(t, plan.WriteJSON(&b))
		assert.Equal(t, b.String(), goldenPlan)
	}
}

func TestNew_empty(t *testing.T) {
	t.Parallel()
	for name, images := range map[string][]matrix.Image{
		"no_image":     nil,
		"no_platforms": {{Image: "app"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := matrix.New(matrix.Options{Images: images})
			assert.NilError(t, err)
			var b strings.Builder
			assert.NilError(t, plan.WriteJSON(&b))
			assert.Equal(t, b.String(), `{"matrix":{"include":[]},"merges":{"include":[]},"platforms":"","key":"","artifacts":"","count":0,"empty":true}`+"\n")
		})
	}
}

func TestNew_several_images(t *testing.T) {
	t.Parallel()
	two := platforms(t, "amd64,arm64")
	plan, err := matrix.New(matrix.Options{
		Images: []matrix.Image{
			{Image: "ghcr.io/acme/app", Target: "test", Platforms: two},
			{Image: "ghcr.io/acme/web", Platforms: two[:1]},
			{Image: "quay.io/acme/web", Platforms: two[:1]},
			{Image: "ghcr.io/acme/none"},
		},
		Defaults: matrix.GitHubRunners(),
	})
	assert.NilError(t, err)
	rows := plan.Matrix.Include
	assert.Assert(t, is.Len(rows, 4))
	assert.Equal(t, rows[0].Name, "app-test linux/amd64")
	assert.Equal(t, rows[2].Name, rows[2].Key+" linux/amd64")
	artifacts := map[string]bool{}
	for i, row := range rows {
		assert.Equal(t, row.Index, i)
		assert.Check(t, !artifacts[row.Artifact], row.Artifact)
		artifacts[row.Artifact] = true
	}
	assert.Assert(t, is.Len(plan.Merges.Include, 3))
	for _, merge := range plan.Merges.Include {
		matched := 0
		for _, row := range rows {
			ok, err := path.Match(merge.Artifacts, row.Artifact)
			assert.NilError(t, err)
			assert.Equal(t, ok, row.Key == merge.Key, "%s %s", merge.Artifacts, row.Artifact)
			if ok {
				matched++
			}
		}
		assert.Equal(t, matched, len(strings.Split(merge.Platforms, ",")))
	}
	assert.Equal(t, plan.Key+plan.Platforms+plan.Artifacts, "")
}

func TestNew_artifacts_of_own_key(t *testing.T) {
	t.Parallel()
	rows, err := matrix.New(matrix.Options{
		Images:   []matrix.Image{{Image: "app", Key: "app", Platforms: platforms(t, "amd64")}, {Image: "web", Key: "app-web", Platforms: platforms(t, "amd64")}},
		Defaults: matrix.GitHubRunners(),
	})
	assert.NilError(t, err)
	assert.Equal(t, rows.Merges.Include[0].Artifacts, "kma-app-linux-amd64")
	assert.Equal(t, rows.Merges.Include[1].Artifacts, "kma-app-web-linux-amd64")
}

func TestNew_default_keys_differ(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for name, img := range map[string]matrix.Image{
		"base":       {Image: "app"},
		"tag_3.11":   {Tags: []string{"app:3.11"}},
		"tag_3.12":   {Tags: []string{"app:3.12"}},
		"target":     {Image: "app", Target: "test"},
		"dockerfile": {Image: "app", Dockerfile: "alpine/Dockerfile"},
		"context":    {Image: "app", Context: "sub"},
		"args":       {Image: "app", BuildArgs: []string{"A=1"}},
	} {
		img.Platforms = platforms(t, "amd64")
		plan, err := matrix.New(matrix.Options{Images: []matrix.Image{img}, Defaults: matrix.GitHubRunners()})
		assert.NilError(t, err)
		assert.Equal(t, seen[plan.Key], "", "%s has the key of another", name)
		seen[plan.Key] = name
		assert.Equal(t, plan.Matrix.Include[0].Image, "docker.io/library/app")
		assert.Equal(t, plan.Artifacts, "kma-"+plan.Key+"-*")
	}
}

func TestNew_refuses(t *testing.T) {
	t.Parallel()
	amd64 := platforms(t, "amd64")
	for name, test := range map[string]struct {
		opts matrix.Options
		want string
	}{
		"no_runner":        {matrix.Options{Images: []matrix.Image{{Image: "app", Platforms: amd64}}}, "no runner for linux/amd64: add a line linux/amd64=LABEL"},
		"same_image_twice": {matrix.Options{Images: []matrix.Image{{Image: "app", Platforms: amd64}, {Image: "app", Platforms: amd64}}, Defaults: matrix.GitHubRunners()}, "two images have key app-"},
		"bad_key":          {matrix.Options{Images: []matrix.Image{{Image: "app", Key: "a/b"}}}, `key "a/b"`},
		"bad_image":        {matrix.Options{Images: []matrix.Image{{Image: "https://ghcr.io/app"}}}, `image "https://ghcr.io/app"`},
		"image_with_tag":   {matrix.Options{Images: []matrix.Image{{Image: "app:1"}}}, `image "app:1": give the repository without tag`},
		"same_tag_twice": {matrix.Options{Images: []matrix.Image{{Tags: []string{"app:1"}, Platforms: amd64}, {Tags: []string{"docker.io/library/app:1"}, Target: "x", Platforms: amd64}}, Defaults: matrix.GitHubRunners()},
			"two images would be published as docker.io/library/app:1"},
		"too_many_rows": {matrix.Options{Images: []matrix.Image{{Image: "app", Platforms: platforms(t, "amd64,arm64,s390x")}}, Defaults: matrix.GitHubRunners(), Limit: 2, System: "GitHub"},
			"the matrix has 3 rows, GitHub takes 2"},
		"bad_tag": {matrix.Options{Images: []matrix.Image{{Tags: []string{"app:"}}}}, `image "app:"`},
		"graph_fails": {matrix.Options{Images: []matrix.Image{{
			Image: "app", Platforms: platforms(t, "arm64"),
			StepsOn: func(_, _ ocispecs.Platform) ([]ocispecs.Platform, error) { return nil, errors.New("no Dockerfile") },
		}}, Runners: runners(t, "ubuntu-24.04")}, "docker.io/library/app runs on linux/arm64: no Dockerfile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := matrix.Rows(test.opts)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestRows_mode(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		runners, platform string
		runs              *bool
		want              matrix.Mode
	}{
		"github_amd64":             {"default=ubuntu-24.04", "linux/amd64", nil, matrix.Native},
		"github_386":               {"default=ubuntu-latest", "linux/386", nil, matrix.Native},
		"github_arm64_on_amd64":    {"default=ubuntu-24.04", "linux/arm64", nil, matrix.QEMU},
		"github_arm64":             {"default=ubuntu-24.04-arm", "linux/arm64", nil, matrix.Native},
		"github_amd64_on_arm64":    {"default=ubuntu-24.04-arm", "linux/amd64", nil, matrix.QEMU},
		"arm_v7_on_arm64":          {"linux/arm=ubuntu-24.04-arm", "linux/arm/v7", nil, matrix.QEMU},
		"arm_v7_on_its_own":        {`linux/arm/v7=["self-hosted","pi"]`, "linux/arm/v7", nil, matrix.Native},
		"arm_v7_on_32_bit_label":   {`linux/arm=["self-hosted","ARM"]`, "linux/arm/v7", nil, matrix.Native},
		"arm_v7_on_arm_by_default": {"default=my-arm-box", "linux/arm/v7", nil, matrix.QEMU},
		"arm64_on_arm_by_default":  {"default=my-arm-box", "linux/arm64", nil, matrix.Native},
		"wrong_box_for_the_rule":   {`linux/arm64=["self-hosted","X64"]`, "linux/arm64", nil, matrix.QEMU},
		"gitlab_arm64":             {"default=saas-linux-small-arm64", "linux/arm64", nil, matrix.Native},
		"own_machine":              {"linux/s390x=z-machine", "linux/s390x", nil, matrix.Native},
		"unknown_is_amd64":         {"default=big-box", "linux/s390x", nil, matrix.QEMU},
		"rule_for_the_os_only":     {"linux=big-box", "linux/s390x", nil, matrix.QEMU},
		"group":                    {`linux/arm64={"group":"arm","labels":["linux"]}`, "linux/arm64", nil, matrix.Native},
		"cross":                    {"default=ubuntu-24.04", "linux/arm64", new(false), matrix.Cross},
		"not_cross":                {"default=ubuntu-24.04", "linux/arm64", new(true), matrix.QEMU},
		"native_before_cross":      {"default=ubuntu-24.04", "linux/amd64", new(false), matrix.Native},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := matrix.Image{Image: "app", Platforms: platforms(t, test.platform)}
			if test.runs != nil {
				img.StepsOn = func(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
					assert.Check(t, is.Equal(platform.Format(p), test.platform))
					if *test.runs {
						return []ocispecs.Platform{p}, nil
					}
					return []ocispecs.Platform{host}, nil
				}
			}
			opts := matrix.Options{Images: []matrix.Image{img}, Runners: runners(t, test.runners)}
			rows, err := matrix.Rows(opts)
			assert.NilError(t, err)
			assert.Equal(t, rows[0].Mode, test.want)
			assert.Equal(t, rows[0].QEMU, test.want == matrix.QEMU)

			opts.Kubernetes = true
			rows, err = matrix.Rows(opts)
			assert.NilError(t, err)
			assert.Equal(t, rows[0].Mode, matrix.Kubernetes)
			assert.Equal(t, rows[0].QEMU, false)
		})
	}
}

func TestRows_runner(t *testing.T) {
	t.Parallel()
	const text = `
		default=ubuntu-24.04
		linux/arm = ["self-hosted", "pi"]
		linux/arm/v6=old-pi
		linux/aarch64={"labels": "arm64", "group": "big=1"}
		linux/s390x=["z"]
		linux/riscv64={"group":"rv"}
		windows=win
	`
	for name, test := range map[string]struct{ text, platform, want string }{
		"default":                  {text, "linux/amd64", `"ubuntu-24.04"`},
		"segment":                  {text, "linux/arm/v7", `["self-hosted","pi"]`},
		"most_specific":            {text, "linux/arm/v6", `"old-pi"`},
		"arm_is_not_arm64":         {text, "linux/arm64", `{"group":"big=1","labels":"arm64"}`},
		"longer_than_the_rule":     {text, "linux/arm64/v9", `{"group":"big=1","labels":"arm64"}`},
		"list_of_one":              {text, "linux/s390x", `["z"]`},
		"group_alone":              {text, "linux/riscv64", `{"group":"rv"}`},
		"os":                       {text, "windows/amd64", `"win"`},
		"label_alone":              {"self-hosted", "linux/arm64", `"self-hosted"`},
		"list_alone":               {`["a=b","c"]`, "linux/arm64", `["a=b","c"]`},
		"object_alone":             {`{"group":"a=b"}`, "linux/arm64", `{"group":"a=b"}`},
		"arch_alone":               {"arm64=a\ndefault=b", "linux/arm64", `"a"`},
		"arm_alone":                {"arm=a\ndefault=b", "linux/arm/v5", `"a"`},
		"armhf_is_v7":              {"linux/armhf=a\ndefault=b", "linux/arm/v6", `"b"`},
		"value_with_equals":        {"default=a=b", "linux/amd64", `"a=b"`},
		"defaults_answer":          {"", "linux/arm64", `"ubuntu-24.04-arm"`},
		"defaults_fill_in":         {"linux/s390x=z", "linux/amd64", `"ubuntu-24.04"`},
		"own_default_goes_first":   {"default=mine", "linux/arm64", `"mine"`},
		"order_does_not_matter":    {"linux/arm/v7=b\nlinux/arm=a\nlinux=c", "linux/arm/v7", `"b"`},
		"expression_is_no_problem": {"default=${{ vars.RUNNER }}", "linux/amd64", `"${{ vars.RUNNER }}"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, err := matrix.Rows(matrix.Options{
				Images:  []matrix.Image{{Image: "app", Platforms: platforms(t, test.platform)}},
				Runners: runners(t, test.text), Defaults: matrix.GitHubRunners(),
			})
			assert.NilError(t, err)
			data, err := json.Marshal(rows[0].Runner)
			assert.NilError(t, err)
			assert.Equal(t, string(data), test.want)
		})
	}
}

func TestParseRunners_refuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"default=a\nb":              `runner "b": write it as linux/arm64=LABEL`,
		"default=":                  "names no runner",
		"linux/amr64=a":             `the architecture "amr64" is not known`,
		"lunix=a":                   "lunix",
		"default=a\ndefault=b":      "default is given twice",
		"linux/arm64=a\narm64/v8=b": "arm64/v8",
		"arm64=a\nlinux/aarch64=b":  "linux/aarch64 is given twice",
		"default=[":                 "not a JSON array of labels",
		"default=[]":                "it has no label",
		`default=[""]`:              "it has no label",
		"default=[1]":               "not a JSON array of labels",
		"default={":                 "not a JSON object",
		"default={}":                "neither group nor labels",
		`default={"labels":[]}`:     "it has no label",
		`default={"labels":""}`:     "not a JSON array of labels",
		`default={"runs-on":"a"}`:   "not a JSON object of",
		`default={"group":"a"} b`:   "not a JSON object of",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, err := matrix.ParseRunners(text)
			assert.ErrorContains(t, err, want)
		})
	}
}

func TestGitLabRunners(t *testing.T) {
	t.Parallel()
	rows, err := matrix.Rows(matrix.Options{
		Images:   []matrix.Image{{Image: "app", Platforms: platforms(t, "amd64,arm64,armhf")}},
		Defaults: matrix.GitLabRunners(),
	})
	assert.NilError(t, err)
	assert.DeepEqual(t, []matrix.Mode{rows[0].Mode, rows[1].Mode, rows[2].Mode}, []matrix.Mode{matrix.Native, matrix.Native, matrix.QEMU})
	assert.DeepEqual(t, rows[1].Runner.Labels, []string{"saas-linux-small-arm64"})
}

func platforms(t *testing.T, s string) []ocispecs.Platform {
	t.Helper()
	list, err := platform.ParseList([]string{s})
	assert.NilError(t, err)
	return list
}

func runners(t *testing.T, text string) matrix.Runners {
	t.Helper()
	r, err := matrix.ParseRunners(text)
	assert.NilError(t, err)
	return r
}
