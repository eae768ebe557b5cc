package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestCounter_counts_bytes_of_layers_both_ways(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New())
	t.Cleanup(server.Close)
	c := newCounter(strings.TrimPrefix(server.URL, "http://"))
	proxy := httptest.NewServer(c)
	t.Cleanup(proxy.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(proxy.URL, "http://") + "/a/b:1")
	assert.NilError(t, err)
	img, err := random.Image(100_000, 2)
	assert.NilError(t, err)
	layers, err := img.Layers()
	assert.NilError(t, err)
	var size int64
	for _, l := range layers {
		n, err := l.Size()
		assert.NilError(t, err)
		size += n
	}

	assert.NilError(t, remote.Write(ref, img))
	requests, moved := c.seen()
	assert.Check(t, is.Equal(moved, size), "of an upload")
	assert.Check(t, requests > 5)

	c.reset()
	pulled, err := remote.Image(ref)
	assert.NilError(t, err)
	_, err = pulled.ConfigFile()
	assert.NilError(t, err)
	_, moved = c.seen()
	assert.Check(t, is.Equal(moved, int64(0)), "a config is no layer")
	layers, err = pulled.Layers()
	assert.NilError(t, err)
	r, err := layers[0].Compressed()
	assert.NilError(t, err)
	for buf := make([]byte, 1<<20); err == nil; {
		_, err = r.Read(buf)
	}
	n, err := layers[0].Size()
	assert.NilError(t, err)
	_, moved = c.seen()
	assert.Check(t, is.Equal(moved, n), "of a download")
}

func TestVertices(t *testing.T) {
	t.Parallel()
	out := "#1 [internal] load build definition\n#2 CACHED\n#12 DONE 0.1s\n#7 x\nother #99\n#z\n"
	assert.Check(t, is.Equal(vertices(out), 12))
}
