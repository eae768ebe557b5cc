package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/tools/txtar"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

func TestReadTable(t *testing.T) {
	t.Setenv("KMA_CONFORMANCE_TEST", "127.0.0.1:1/bases")
	dir := write(t, map[string]string{
		"table.json": `{"bases":{"docker.io/library/busybox":"$KMA_CONFORMANCE_TEST/busybox:1","debian:12":"x/debian"},
			"cases":[{"name":"b","dockerfile":"Dockerfile.b","error":"x"},{"name":"a","platform":"linux/arm64"}]}`,
	})
	got, err := readTable(dir, filepath.Join(dir, "table.json"))
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got.Bases, map[string]string{"busybox": "127.0.0.1:1/bases/busybox:1", "debian:12": "x/debian"}))
	assert.Check(t, is.DeepEqual(got.Cases, []Case{
		{Name: "a", Dockerfile: "Dockerfile", Platform: "linux/arm64"},
		{Name: "b", Dockerfile: "Dockerfile.b", Platform: "linux/amd64", Fails: true, Error: "x"},
	}))
}

func TestReadTable_without_a_table(t *testing.T) {
	t.Parallel()
	got, err := readTable(write(t, map[string]string{"Dockerfile.x": "", "Dockerfile": "", "Dockerfile.x.dockerignore": "", "other": ""}), "")
	assert.NilError(t, err)
	var names []string
	for _, c := range got.Cases {
		names = append(names, c.Name+" "+c.Dockerfile)
	}
	assert.Check(t, is.DeepEqual(names, []string{"Dockerfile Dockerfile", "Dockerfile.x Dockerfile.x"}))
}

func TestReadTable_refuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ table, want string }{
		"unknown_field": {`{"cases":[{"name":"a","dockefile":"x"}]}`, `unknown field "dockefile"`},
		"no_name":       {`{"cases":[{}]}`, "case 0 has no name"},
		"bad_base":      {`{"bases":{"A B":"x"}}`, `base "A B"`},
		"no_variable":   {`{"bases":{"a":"$KMA_NO_SUCH/x"}}`, "KMA_NO_SUCH is not set: run this under test/with-services.sh"},
		"no_reason":     {`{"exemptions":[{"case":"a","line":"b"}]}`, "says no reason"},
		"bad_regexp":    {`{"exemptions":[{"case":"a","line":"(","why":"c"}]}`, "missing closing )"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, map[string]string{"t.json": tc.table})
			_, err := readTable(dir, filepath.Join(dir, "t.json"))
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "x")
	c := Case{Context: "x"}
	assert.NilError(t, unpack(&c, txtar.Parse([]byte(`shows
-- case.json --
{"target": "t", "contexts": {"more": "sub"}}
-- make.sh --
ln -s a link
touch -d '2001-01-01 UTC' old
-- d/a --
text
`)), dir))
	assert.Check(t, is.Equal(c.Target, "t"))
	assert.Check(t, is.Equal(c.Contexts["more"], "x/sub"))
	for name, year := range map[string]int{"d/a": 2020, "d": 2020, "link": 2020, "old": 2001} {
		info, err := os.Lstat(filepath.Join(dir, name))
		assert.NilError(t, err)
		assert.Check(t, is.Equal(info.ModTime().UTC().Year(), year), name)
	}
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Check(t, is.Len(entries, 3), "case.json and make.sh are not of the context")
}

func TestSample(t *testing.T) {
	t.Parallel()
	all := []Case{{Name: "a1"}, {Name: "a2", Slow: true}, {Name: "a3"}, {Name: "b"}, {Name: "a4"}}
	for _, tc := range []struct {
		only string
		n    int
		want string
	}{{"a", 1, "a1a2a3a4"}, {"a", 2, "a1a4"}, {"", 2, "a1b"}} {
		got := ""
		for _, c := range sample(all, regexp.MustCompile(tc.only), tc.n) {
			got += c.Name
		}
		assert.Check(t, is.Equal(got, tc.want))
	}
}

// An exemption covers whole names and lines, and one that nothing needs is told of.
func TestExemptions(t *testing.T) {
	t.Parallel()
	s := &suite{isolations: []string{isolationNamespaces}, used: map[int]bool{}, table: &table{
		Cases: []Case{{Name: "a"}, {Name: "ab"}},
		Exemptions: []Exemption{{Case: "a", Line: "/f: .*", Why: "because"}, {Case: "ab", Line: "x", Why: "never"}, {Case: "other", Line: "x", Why: "did not run"},
			{Case: "a", Line: "/g", Why: "elsewhere", Isolation: isolationInPlace}},
	}}
	assert.Check(t, is.Equal(s.exempt(&s.Cases[0], isolationNamespaces, "/f: mode"), "because"))
	assert.Check(t, is.Equal(s.exempt(&s.Cases[0], isolationNamespaces, "in /f: mode"), ""))
	assert.Check(t, is.Equal(s.exempt(&s.Cases[1], isolationNamespaces, "/f: mode"), ""))
	assert.Check(t, is.Equal(s.exempt(&s.Cases[0], isolationNamespaces, "/g"), ""))
	assert.Check(t, is.Equal(s.exempt(&s.Cases[0], isolationInPlace, "/g"), "elsewhere"))
	s.used = map[int]bool{0: true}
	left := s.unused()
	assert.Assert(t, is.Len(left, 1))
	assert.Check(t, is.Contains(left[0].What, "the exemption of x is not needed"))
}
