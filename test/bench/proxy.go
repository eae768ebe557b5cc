package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
)

// counter stands before a registry and counts requests, and the bytes of each blob
// that moves.
type counter struct {
	proxy *httputil.ReverseProxy

	mu       sync.Mutex
	requests int
	blobs    map[string]int64 // by digest, or path of an upload
	layers   map[string]bool  // digests, from manifests that went by
}

func newCounter(registry string) *counter {
	c := &counter{}
	c.reset()
	c.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: registry})
			r.Out.Host = r.In.Host // the registry's own links come here, too
		},
		ModifyResponse: c.response,
		Transport:      &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true},
		// An engine that gives up a request of its own is no news.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return c
}

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests, c.blobs = 0, map[string]int64{}
	if c.layers == nil {
		c.layers = map[string]bool{}
	}
}

// seen gives the requests and the bytes of layers since reset.
func (c *counter) seen() (requests int, layerBytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for digest, n := range c.blobs {
		if c.layers[digest] {
			layerBytes += n
		}
	}
	return c.requests, layerBytes
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests++
	c.mu.Unlock()
	switch {
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
		r.Body = c.noted(r.Body)
	case strings.Contains(r.URL.Path, "/blobs/uploads/") && r.Body != nil:
		// A session's bytes become its blob's when it is closed.
		upload, digest := r.URL.Path, r.URL.Query().Get("digest")
		r.Body = &counted{ReadCloser: r.Body, add: func(n int) { c.add(upload, n) }}
		c.proxy.ServeHTTP(w, r)
		if digest != "" {
			c.closed(upload, digest)
		}
		return
	}
	c.proxy.ServeHTTP(w, r)
}

func (c *counter) response(r *http.Response) error {
	if r.Request.Method != http.MethodGet || r.StatusCode >= 300 {
		return nil
	}
	switch p := r.Request.URL.Path; {
	case strings.Contains(p, "/manifests/"):
		r.Body = c.noted(r.Body)
	case strings.Contains(p, "/blobs/sha256:"):
		digest := path.Base(p)
		r.Body = &counted{ReadCloser: r.Body, add: func(n int) { c.add(digest, n) }}
	}
	return nil
}

func (c *counter) add(blob string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blobs[blob] += int64(n)
}

func (c *counter) closed(upload, digest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blobs[digest] += c.blobs[upload]
	delete(c.blobs, upload)
}

// noted reads a manifest and passes it on.
func (c *counter) noted(body io.ReadCloser) io.ReadCloser {
	defer body.Close()
	data, _ := io.ReadAll(body) //nolint:errcheck // the other side sees the short body
	var manifest struct {
		Layers, Manifests []struct{ MediaType, Digest string }
	}
	if json.Unmarshal(data, &manifest) == nil {
		c.mu.Lock()
		for _, l := range append(manifest.Layers, manifest.Manifests...) {
			// BuildKit's cache is an index with layers in it, and its own config.
			if strings.Contains(l.MediaType, ".layer.") || strings.Contains(l.MediaType, ".diff.") {
				c.layers[l.Digest] = true
			}
		}
		c.mu.Unlock()
	}
	return io.NopCloser(bytes.NewReader(data))
}

// counted tells of every read.
type counted struct {
	io.ReadCloser
	add func(n int)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.add(n)
	return n, err
}

// vertices is how many steps the progress of ours or BuildKit tells of: the highest
// of the numbers that its lines start with.
func vertices(out string) int {
	most := 0
	for line := range strings.Lines(out) {
		if n, ok := strings.CutPrefix(line, "#"); ok {
			number, _, _ := strings.Cut(n, " ")
			if i, err := strconv.Atoi(number); err == nil {
				most = max(most, i)
			}
		}
	}
	return most
}
