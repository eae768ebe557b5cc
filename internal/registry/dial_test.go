package registry

import (
	"context"
	"errors"
	"net"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A name that was known before leads to the same place when it cannot be looked
// up any more.
func TestDialer_remembers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	assert.NilError(t, err)

	d := &dialer{}
	// A resolver without a server cannot answer; until then the name is local.
	d.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no server")
	}}
	dial := func(name string) error {
		conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(name, port))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	assert.Check(t, dial("name.invalid") != nil)
	assert.NilError(t, dial("localhost"))
	d.known[net.JoinHostPort("name.invalid", port)] = d.known[net.JoinHostPort("localhost", port)]
	assert.NilError(t, dial("name.invalid"))
	assert.Check(t, is.Len(d.known, 2))
}
