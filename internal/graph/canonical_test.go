package graph

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func sum(t *testing.T, v any) string {
	t.Helper()
	h := sha256.New()
	assert.NilError(t, Hash(h, v))
	return hex.EncodeToString(h.Sum(nil))
}

// Each of these was, or is, one key in some builder.
func TestHash_differs(t *testing.T) {
	t.Parallel()
	mode := uint32(0o644)
	for name, pair := range map[string][2]any{
		"joined_arguments":    {&Exec{Args: []string{"a b"}}, &Exec{Args: []string{"a", "b"}}},
		"moved_between_lists": {&Exec{Args: []string{"a", "b"}}, &Exec{Args: []string{"a"}, Env: []string{"b"}}},
		"order_of_variables":  {&Exec{Env: []string{"A=1", "A=2"}}, &Exec{Env: []string{"A=2", "A=1"}}},
		"no_utf8":             {&Exec{Args: []string{"\xff"}}, &Exec{Args: []string{"\xfe"}}},
		"heredoc_bodies":      {&File{Actions: []Action{{Do: &Mkfile{Data: []byte("a")}}}}, &File{Actions: []Action{{Do: &Mkfile{Data: []byte("b")}}}}},
		"types_of_actions":    {&File{Actions: []Action{{Do: &Mkdir{Path: "/a"}}}}, &File{Actions: []Action{{Do: &Remove{Path: "/a"}}}}},
		"no_mode":             {&Copy{Mode: nil}, &Copy{Mode: new(uint32)}},
		"modes":               {&Copy{Mode: &mode}, &Copy{Mode: new(uint32)}},
		"owners":              {&Copy{Owner: &Owner{User: &Identity{ID: 1}}}, &Copy{Owner: &Owner{Group: &Identity{ID: 1}}}},
		"times":               {&Copy{Time: new(time.Time)}, &Copy{}},
	} {
		first, again, other := sum(t, pair[0]), sum(t, pair[0]), sum(t, pair[1])
		assert.Check(t, first != other, name)
		assert.Check(t, first == again, name)
	}
}

func TestHash_leaves_out(t *testing.T) {
	t.Parallel()
	assert.Check(t, sum(t, &Exec{ProxyEnv: []string{"http_proxy=x"}}) == sum(t, &Exec{}))
	utc := time.Unix(1, 2)
	assert.Check(t, sum(t, &Copy{Time: &utc}) == sum(t, &Copy{Time: new(utc.In(time.FixedZone("x", 3600)))}))
}
