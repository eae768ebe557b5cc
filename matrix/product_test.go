package matrix_test

import (
	"fmt"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/matrix"
)

func TestProduct(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		base             matrix.Image
		dims             []string
		include, exclude []string
		// want are tags, target, build arguments and architectures.
		want []string
	}{
		"none": {matrix.Image{Tags: []string{"app:1"}}, nil, nil, nil, []string{"app:1|||amd64 arm64"}},
		"product": {matrix.Image{Tags: []string{"app:{PYTHON}-{target}"}}, []string{"PYTHON=3.11, 3.12", "target=web,job"}, nil, nil, []string{
			"app:3.11-web|web|PYTHON=3.11|amd64 arm64", "app:3.11-job|job|PYTHON=3.11|amd64 arm64",
			"app:3.12-web|web|PYTHON=3.12|amd64 arm64", "app:3.12-job|job|PYTHON=3.12|amd64 arm64"}},
		"json_values":    {matrix.Image{Tags: []string{"app:1"}}, []string{`OPTS=["a,b"]`}, nil, nil, []string{"app:1||OPTS=a,b|amd64 arm64"}},
		"replaces":       {matrix.Image{Tags: []string{"app:1"}, BuildArgs: []string{"V=0", "VV=1"}}, []string{"V=2"}, nil, nil, []string{"app:1||VV=1 V=2|amd64 arm64"}},
		"arg_for_sure":   {matrix.Image{Tags: []string{"app:{target}"}}, []string{"build-arg:target=x"}, nil, nil, []string{"app:x||target=x|amd64 arm64"}},
		"in_an_argument": {matrix.Image{Tags: []string{"app:1"}, BuildArgs: []string{"FROM=python:{V}"}}, []string{"V=3"}, nil, nil, []string{"app:1||FROM=python:3 V=3|amd64 arm64"}},
		"other_braces":   {matrix.Image{Tags: []string{"app:1"}, BuildArgs: []string{"X={y}"}}, []string{"V=3"}, nil, nil, []string{"app:1||X={y} V=3|amd64 arm64"}},
		"no_value":       {matrix.Image{Tags: []string{"app:1"}}, []string{"V="}, nil, nil, nil},
		"exclude":        {matrix.Image{Tags: []string{"app:{V}"}}, []string{"V=1,2", "W=a,b"}, nil, []string{"V=1,W=a", "V=2"}, []string{"app:1||V=1 W=b|amd64 arm64"}},
		"exclude_platform": {matrix.Image{Tags: []string{"app:{V}"}}, []string{"V=1,2"}, nil, []string{"V=1,platform=aarch64", "platform=amd64,V=2"}, []string{
			"app:1||V=1|amd64", "app:2||V=2|arm64"}},
		"exclude_all":  {matrix.Image{Tags: []string{"app:{V}"}}, []string{"V=1"}, nil, []string{"platform=amd64,platform=arm64"}, []string{"app:1||V=1|"}},
		"include_less": {matrix.Image{Tags: []string{"app:{V}{W}"}}, []string{"V=1", "W=a"}, []string{"V=1"}, nil, []string{"app:1a||V=1 W=a|amd64 arm64", "app:1||V=1|amd64 arm64"}},
		"include": {matrix.Image{Tags: []string{"app:{V}{W}"}}, []string{"V=1", "W=a"}, []string{"V=9", "V=1,W=a,platform=s390x", "V=2,W=b,platform=s390x"}, []string{"platform=amd64"}, []string{
			"app:1a||V=1 W=a|arm64 s390x", "app:9||V=9|amd64 arm64", "app:2b||V=2 W=b|s390x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.base.Platforms = platforms(t, "amd64,arm64")
			var dims []matrix.Dimension
			for _, line := range test.dims {
				d, err := matrix.ParseDimension(line)
				assert.NilError(t, err)
				dims = append(dims, d)
			}
			selections := func(lines []string) (out []matrix.Selection) {
				for _, line := range lines {
					s, err := matrix.ParseSelection(line, dims)
					assert.NilError(t, err)
					out = append(out, s)
				}
				return out
			}
			images, err := matrix.Product(test.base, dims, selections(test.include), selections(test.exclude))
			assert.NilError(t, err)
			var got []string
			for _, img := range images {
				var arches []string
				for _, p := range img.Platforms {
					arches = append(arches, strings.TrimPrefix(platform.Format(p), "linux/"))
				}
				got = append(got, strings.Join([]string{strings.Join(img.Tags, ","), img.Target, strings.Join(img.BuildArgs, " "), strings.Join(arches, " ")}, "|"))
			}
			assert.DeepEqual(t, got, test.want)
		})
	}
}

func TestProduct_refuses(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"V": "NAME=VALUE,VALUE", "=1": "NAME=VALUE,VALUE", "a-b=1": "NAME=VALUE,VALUE", "platform=amd64": "NAME=VALUE,VALUE",
		"tags=a": "NAME=VALUE,VALUE", "V=1,1": "twice", "V=[1]": "JSON array of texts",
	} {
		_, err := matrix.ParseDimension(line)
		assert.Check(t, is.ErrorContains(err, want), line)
	}
	dims := []matrix.Dimension{{Name: "V", Values: []string{"1"}}}
	for line, want := range map[string]string{"V": "NAME=VALUE", "W=1": `no dimension "W"`, "platform=amr": "amr", "V=1,V=2": "given twice"} {
		_, err := matrix.ParseSelection(line, dims)
		assert.Check(t, is.ErrorContains(err, want), line)
	}
	_, err := matrix.Product(matrix.Image{}, append(dims, dims...), nil, nil)
	assert.Check(t, is.ErrorContains(err, "V is given twice"))
}

// Ten images, one matrix, one merge matrix.
func TestNew_monorepo(t *testing.T) {
	t.Parallel()
	var images []matrix.Image
	for i := range 10 {
		images = append(images, matrix.Image{
			Tags: []string{fmt.Sprintf("r.example/acme/s%d:1", i)}, Context: fmt.Sprintf("services/s%d", i), Platforms: platforms(t, "amd64,arm64"),
		})
	}
	plan, err := matrix.New(matrix.Options{Images: images, Defaults: matrix.GitHubRunners(), Limit: 20, System: "GitHub"})
	assert.NilError(t, err)
	assert.Equal(t, plan.Count, 20)
	assert.Assert(t, is.Len(plan.Merges.Include, 10))
	assert.Equal(t, plan.Matrix.Include[19].Context, "services/s9")
	assert.Equal(t, plan.Matrix.Include[19].Name, "s9 linux/arm64")
	_, err = matrix.New(matrix.Options{Images: images, Defaults: matrix.GitHubRunners(), Limit: 19, System: "GitHub"})
	assert.ErrorContains(t, err, "the matrix has 20 rows")
}
