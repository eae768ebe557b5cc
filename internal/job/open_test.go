package job

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// What may log in to somewhere travels in the Secret, and is not shown; the words
// that logs are full of are.
func TestSecretsOfLocations(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, location string
		secret         bool
		// masked are what is not shown but for the whole.
		masked []string
	}{
		{"plain", "https://example.com/r.git#main", false, nil},
		{"image", "docker-image://user:x@example.com/app?x", false, nil},
		{"ssh_user", "ssh://git@example.com/r.git", false, nil},
		{"ssh_password", "ssh://git:hunter2@example.com/r.git", true, []string{"hunter2"}},
		{"token", "https://ghp_0123456789abcdef@example.com/r.git", true, []string{"ghp_0123456789abcdef"}},
		{"user", "https://git@example.com/r.git", true, nil},
		{"signature", "https://example.com/c.tar?sig=0123456789", true, []string{"sig=0123456789"}},
		{"short_query", "https://example.com/c.tar?v=1", true, nil},
		{"no_url", "https://user:%zz@example.com/r.git", true, nil},
		{"no_location", "r.git", false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.Equal(hasSecret(tc.location), tc.secret))
			if tc.secret {
				assert.Check(t, is.DeepEqual(secretsOf(tc.location), append([]string{tc.location}, tc.masked...)))
			}
		})
	}
}
