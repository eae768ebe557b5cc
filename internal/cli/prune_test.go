package cli

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int64{"0": 0, "5": 5, "1k": 1 << 10, "10g": 10 << 30, "1.5m": 3 << 19} {
		got, err := parseSize("keep", value)
		assert.Check(t, err == nil && got == want, "%s: %d, %v", value, got, err)
	}
	for _, value := range []string{"", "-1", "much", "1x"} {
		_, err := parseSize("keep", value)
		assert.Check(t, is.ErrorContains(err, "--keep"), value)
	}
}
