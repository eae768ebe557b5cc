package cli

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Every flag in the documents of matrix and merge exists, and takes what is
// shown.
func TestDocs_commands_parse(t *testing.T) {
	t.Parallel()
	command := regexp.MustCompile("(?s)kaniko-multiarch (?:matrix|merge) .*?[^\\\\]\n")
	for _, name := range []string{"../../docs/merge.md", "../../docs/matrix.md", "../../README.md"} {
		text, err := os.ReadFile(name)
		assert.NilError(t, err)
		found := command.FindAllString(strings.ReplaceAll(string(text), "$image", "r.example/a"), -1)
		assert.Assert(t, len(found) > 0, name)
		for _, line := range found {
			out, err := exec.CommandContext(t.Context(), "sh", "-c", `set -- `+line+`
printf '%s\n' "$@"`).Output()
			assert.NilError(t, err, line)
			words := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
			_, err = parse(t, nil, words[1:]...)
			assert.NilError(t, err, line)
		}
	}
}
