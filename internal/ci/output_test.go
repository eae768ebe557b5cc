package ci

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func file(t *testing.T, variable string) (name string, getenv func(string) string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "file")
	return name, func(v string) string {
		if v == variable {
			return name
		}
		return ""
	}
}

func TestWriteOutputs(t *testing.T) {
	t.Parallel()
	assert.NilError(t, WriteOutputs(func(string) string { return "" }, Output{"a", "b"}))
	name, getenv := file(t, "GITHUB_OUTPUT")
	evil := "100%\n_GitHubActionsFileCommandDelimeter_\nevil=1\n::set-output name=x::y"
	assert.NilError(t, WriteOutputs(getenv, Output{"one", evil}, Output{"empty", ""}))
	assert.NilError(t, WriteOutputs(getenv, Output{"two", "2"}))
	data, err := os.ReadFile(name)
	assert.NilError(t, err)

	// As the runner reads it.
	got := map[string]string{}
	delimiters := map[string]bool{}
	for rest := string(data); rest != ""; {
		m := regexp.MustCompile(`^(\w+)<<(\S+)\n`).FindStringSubmatch(rest)
		assert.Assert(t, m != nil, rest)
		rest = rest[len(m[0]):]
		value, after, ok := strings.Cut(rest, "\n"+m[2]+"\n")
		assert.Assert(t, ok)
		got[m[1]], rest = value, after
		assert.Check(t, !delimiters[m[2]], "the same delimiter twice")
		delimiters[m[2]] = true
	}
	assert.Check(t, is.DeepEqual(got, map[string]string{"one": evil, "empty": "", "two": "2"}))
	err = WriteOutputs(func(string) string { return filepath.Join(name, "below") }, Output{"a", "b"})
	assert.Check(t, is.ErrorContains(err, "GITHUB_OUTPUT"))
}

func TestDotenv(t *testing.T) {
	t.Parallel()
	text, err := Dotenv(Output{"IMAGE_DIGEST", "sha256:x"}, Output{"IMAGE_TAGS", "a:1,a:2"})
	assert.NilError(t, err)
	assert.Check(t, is.Equal(text, "IMAGE_DIGEST=sha256:x\nIMAGE_TAGS=a:1,a:2\n"))
	for _, bad := range []Output{{"A-B", "x"}, {"", "x"}, {"A", "x\ny"}} {
		_, err := Dotenv(bad)
		assert.Check(t, is.ErrorContains(err, "dotenv: "))
	}
}

func TestWriteSummary(t *testing.T) {
	t.Parallel()
	assert.NilError(t, WriteSummary(func(string) string { return "" }, "x"))
	name, getenv := file(t, "GITHUB_STEP_SUMMARY")
	assert.NilError(t, WriteSummary(getenv, "# one\n"))
	line := strings.Repeat("é", 50) + "\n"
	assert.NilError(t, WriteSummary(getenv, strings.Repeat(line, 20000)))
	data, err := os.ReadFile(name)
	assert.NilError(t, err)
	assert.Check(t, len(data) <= maxSummary)
	assert.Check(t, len(data) > maxSummary-300)
	assert.Check(t, strings.HasPrefix(string(data), "# one\n"))
	assert.Check(t, strings.HasSuffix(string(data), line+cut))
	assert.NilError(t, WriteSummary(getenv, strings.Repeat(line, 20000)))
	again, err := os.ReadFile(name)
	assert.NilError(t, err)
	assert.Check(t, len(again) <= maxSummary)
}
