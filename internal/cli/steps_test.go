package cli

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

func TestStepFlags(t *testing.T) {
	t.Parallel()
	var o build.Options
	assert.NilError(t, stepFlags{
		AddHost: []string{"a:192.0.2.1\nb=2001:db8::1", "c:[::1]"}, SSH: []string{"default", "x=/a,/b"},
		Network: "none", Allow: []string{"network.host,security.insecure"}, Ulimit: []string{"nofile=1:2", "core=0"}, ShmSize: "64m",
	}.options(&o))
	assert.Check(t, is.DeepEqual(o, build.Options{
		AddHosts: []string{"a=192.0.2.1", "b=2001:db8::1", "c=::1"},
		SSH:      []build.SSH{{ID: "default"}, {ID: "x", Paths: []string{"/a", "/b"}}},
		Network:  "none", AllowInsecure: true, Ulimits: []string{"nofile=1:2", "core=0"}, ShmSize: 64 << 20,
	}))
}

func TestStepFlags_refuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		flags stepFlags
		want  string
	}{
		{"host_gateway", stepFlags{AddHost: []string{"a:host-gateway"}}, "give the address"},
		{"host_without_ip", stepFlags{AddHost: []string{"a"}}, "want HOST:IP"},
		{"host_bad_ip", stepFlags{AddHost: []string{"a:b"}}, "no IP address"},
		{"unknown_right", stepFlags{Allow: []string{"device"}}, "security.insecure or network.host"},
		{"ulimit", stepFlags{Ulimit: []string{"nofile"}}, "--ulimit"},
		{"shm", stepFlags{ShmSize: "-1"}, "--shm-size"},
		{"raw_ssh", stepFlags{SSH: []string{"a=/s,raw=true"}}, "raw is not supported"},
		{"ssh_without_id", stepFlags{SSH: []string{"=/s"}}, "--ssh"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var o build.Options
			err := tc.flags.options(&o)
			assert.ErrorContains(t, err, tc.want)
			code, _ := classify(err)
			assert.Check(t, is.Equal(code, exitUsage))
		})
	}
}
