package main

import (
	"cmp"
	"os"
	"testing"

	"gotest.tools/v3/assert"
)

// Every tenth case of the corpus, with what this machine has. `make
// test-conformance` runs them all.
func TestCorpus(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlayfs")
	}
	for _, name := range []string{"KMA_TEST_REGISTRY", "KMA_TEST_BASES", "KMA_TEST_BUILDKIT"} {
		if os.Getenv(name) == "" {
			t.Skipf("%s is not set: run `make test` as root on Debian, which starts the service", name)
		}
	}
	o := options{isolations: []string{isolationNamespaces}, sample: 10, parallel: 2}
	if os.Getenv("KMA_TEST_DOCKER") != "" {
		o.isolations = append(o.isolations, isolationInPlace)
	}
	dir := t.TempDir()
	table, err := unpackCorpus(dir)
	assert.NilError(t, err)
	table.Cases = sample(table.Cases, whole(".*"), o.sample)
	s, err := newSuite(table, o, dir)
	assert.NilError(t, err)
	defer s.close()
	for _, r := range s.run(t.Context(), o.parallel, func(result) {}) {
		t.Run(r.Name+"/"+cmp.Or(r.Isolation, "both"), func(t *testing.T) {
			if r.bad() {
				t.Error(r)
			}
		})
	}
}
