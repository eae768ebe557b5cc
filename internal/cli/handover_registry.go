package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// recordType is what a record is in a registry.
const recordType = "application/vnd.kaniko-multiarch.record.v1+json"

// handOver gives the records of a build to the job that merges.
func (c *buildCommand) handOver(ctx context.Context, w *World, client *registry.Client, r *local.Result) error {
	switch {
	case c.Handover == "artifact":
		return uploadRecords(ctx, w, r.Records)
	case c.Handover == "registry" && !r.Pushed:
		say(w, "notice", "handover: nothing was pushed, so the registry has no record either")
	case c.Handover == "registry":
		for _, rec := range r.Records {
			if err := pushRecord(ctx, client, rec); err != nil {
				return fmt.Errorf("handover: %w", err)
			}
		}
	}
	return nil
}

// takeOver fetches the records into a directory, which the caller removes. It is
// empty where they are in files already.
func (c *mergeCommand) takeOver(ctx context.Context, w *World, client *registry.Client) (string, error) {
	var files map[string][]byte
	var err error
	switch c.Handover {
	case "artifact":
		files, err = downloadRecords(ctx, w, c.Key)
	case "registry":
		files, err = c.pullRecords(ctx, w, client)
	default:
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return storeRecords(files)
}

// recordTag is where the record of a build is. It names the run, so that runs at
// the same time do not meet; a job that is run again replaces its record.
func recordTag(run, key, slug string) string {
	sum := sha256.Sum256([]byte(run + "\x00" + key + "\x00" + slug))
	return fmt.Sprintf("kma-record-%x", sum[:16])
}

func pushRecord(ctx context.Context, client *registry.Client, r record.Record) error {
	repo, err := registry.ParseRef(r.Image)
	if err != nil {
		return err
	}
	files, err := record.Files(r)
	if err != nil {
		return err
	}
	data := files[r.Stem()+".json"]
	desc := ocispecs.Descriptor{MediaType: recordType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	_, err = client.PushArtifact(ctx, repo.WithTag(recordTag(r.Run, r.Key, r.Slug())), recordType, registry.Blob{Descriptor: desc, Content: bytes.NewReader(data)})
	return err
}

// pullRecords needs to know which there are: a registry cannot be asked for the
// records of a run.
func (c *mergeCommand) pullRecords(ctx context.Context, w *World, client *registry.Client) (map[string][]byte, error) {
	list, err := platform.ParseList(splitList(c.Platform))
	if err != nil {
		return nil, usagef("--platform: %w", err)
	}
	names := splitList(c.Destination)
	if len(list) == 0 || len(names) == 0 {
		return nil, usagef("--handover=registry: give --platform and --destination: the records are looked for by them")
	}
	repo, err := registry.ParseRef(names[0])
	if err != nil {
		return nil, usagef("--destination: %w", err)
	}
	repo = repo.WithTag("")
	files := map[string][]byte{}
	run := ci.Detect(ctx, w.Getenv, ".").ID
	for _, p := range list {
		slug := record.Record{Platform: platform.Format(p)}.Slug()
		data, err := pullRecord(ctx, client, repo, recordTag(run, c.Key, slug))
		if errors.Is(err, registry.ErrNotFound) {
			continue // merge says what is missing
		}
		if err != nil {
			return nil, fmt.Errorf("handover: the record of %s: %w", platform.Format(p), err)
		}
		files[slug+".json"] = data
	}
	return files, nil
}

// maxRecord is in bytes.
const maxRecord = 1 << 20

func pullRecord(ctx context.Context, client *registry.Client, repo registry.Ref, tag string) ([]byte, error) {
	_, data, err := client.Manifest(ctx, repo.WithTag(tag))
	if err != nil {
		return nil, err
	}
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil || manifest.ArtifactType != recordType || len(manifest.Layers) != 1 || manifest.Layers[0].Size > maxRecord {
		return nil, fmt.Errorf("%s:%s is no record", repo.Name(), tag)
	}
	blob, err := client.Blob(ctx, repo, manifest.Layers[0])
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(blob)
	return text, errors.Join(err, blob.Close())
}
