package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/progress"
)

func TestProfile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	p, err := startProfile(dir)
	assert.NilError(t, err)
	start := time.Unix(1_700_000_000, 0)
	assert.NilError(t, p.end([]progress.Span{
		{Name: "RUN login --password hunter22", Start: start, End: start.Add(1500 * time.Millisecond), Failed: true},
		{Name: "COPY . .", Start: start, End: start, Cached: true},
	}, []string{"hunter22"}))

	data, err := os.ReadFile(filepath.Join(dir, "timeline.json"))
	assert.NilError(t, err)
	assert.Assert(t, !bytes.Contains(data, []byte("hunter22")), "%s", data)
	var steps []timelineStep
	assert.NilError(t, json.Unmarshal(data, &steps))
	steps[0].Name = ""
	assert.DeepEqual(t, steps, []timelineStep{
		{Start: start.UTC(), Seconds: 1.5, Failed: true},
		{Name: "COPY . .", Start: start.UTC(), Cached: true},
	})
	for _, name := range []string{"cpu.pprof", "heap.pprof"} {
		f, err := os.Open(filepath.Join(dir, name))
		assert.NilError(t, err)
		defer f.Close()
		z, err := gzip.NewReader(f)
		assert.NilError(t, err, name)
		_, err = io.Copy(io.Discard, z)
		assert.NilError(t, err, "%s is not complete", name)
	}
}

func TestProfile_where_nothing_can_be_written(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	assert.NilError(t, os.WriteFile(file, nil, 0o600))
	_, err := startProfile(file)
	assert.ErrorContains(t, err, "--profile: ")
	assert.ErrorContains(t, err, file)
}
