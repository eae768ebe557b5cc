package cli

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

func TestMirrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		flags   registryFlags
		env     variables
		mirrors []string
		maps    map[string][]string
		err     string
	}{
		{"none", registryFlags{}, nil, nil, map[string][]string{}, ""},
		{"flags", registryFlags{RegistryMirror: []string{"a.test", "b.test/x"}, RegistryMap: []string{"gcr.io=c.test;gcr.io=d.test", "quay.io=e.test"}}, nil,
			[]string{"a.test", "b.test/x"}, map[string][]string{"gcr.io": {"c.test", "d.test"}, "quay.io": {"e.test"}}, ""},
		{"variables", registryFlags{}, variables{"KANIKO_REGISTRY_MIRROR": "a.test,b.test", "KANIKO_REGISTRY_MAP": "gcr.io=c.test"},
			[]string{"a.test", "b.test"}, map[string][]string{"gcr.io": {"c.test"}}, ""},
		{"flags_win", registryFlags{RegistryMirror: []string{"a.test"}}, variables{"KANIKO_REGISTRY_MIRROR": "b.test"}, []string{"a.test"}, map[string][]string{}, ""},
		{"bad_map", registryFlags{RegistryMap: []string{"gcr.io"}}, nil, nil, nil, "--registry-map"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, err := tc.flags.registries(&World{LookupEnv: tc.env.lookup})
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(r.Mirrors, tc.mirrors))
			assert.Check(t, is.DeepEqual(r.Maps, tc.maps))
		})
	}
}

func TestClientCerts(t *testing.T) {
	t.Parallel()
	got, err := clientCerts([]string{"r.test=/c.pem,/k.pem"})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, map[string]build.ClientCert{"r.test": {Cert: "/c.pem", Key: "/k.pem"}}))
	_, err = clientCerts([]string{"r.test=/c.pem"})
	assert.ErrorContains(t, err, "--registry-client-cert")
}

func TestExecutor_credential_helpers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"all", nil, nil},
		{"default", []string{"--credential-helpers=default"}, nil},
		{"none", []string{"--credential-helpers="}, []string{}},
		{"repeated", []string{"--credential-helpers=ecr", "--credential-helpers=google"}, []string{"ecr", "google"}},
		{"some", []string{"--credential-helpers=ecr,google"}, []string{"ecr", "google"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, err := parseExecutor(t, tc.args...)
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(c.helpers(), tc.want))
		})
	}
}
