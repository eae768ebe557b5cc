package record_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
)

func sample(platform string) record.Record {
	return record.Record{
		Key: "app-1f2e3d", Image: "ghcr.io/acme/app", Platform: platform,
		Digest: digest.FromString(platform), Size: 1234, MediaType: "application/vnd.oci.image.manifest.v1+json",
		Pushed: true, Revision: "abc", Committed: time.Date(2026, 11, 23, 10, 0, 0, 0, time.FixedZone("", 3600)),
		Run: "77", Attempt: 1, Finished: time.Date(2026, 11, 23, 9, 42, 0, 0, time.UTC),
		Seconds: 12.3, Cache: record.Cache{Hits: 7, Misses: 2},
	}
}

func TestWrite_golden(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "when", "missing")
	r := sample("linux/arm/v7")
	r.Attempt = 0
	assert.NilError(t, record.Write(dir, r))

	data, err := os.ReadFile(filepath.Join(dir, "app-1f2e3d.linux-arm-v7.json"))
	assert.NilError(t, err)
	assert.Equal(t, string(data), `{
  "schema": "kaniko-multiarch.record/v1",
  "key": "app-1f2e3d",
  "image": "ghcr.io/acme/app",
  "target": "",
  "platform": "linux/arm/v7",
  "digest": "`+r.Digest.String()+`",
  "size": 1234,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "pushed": true,
  "revision": "abc",
  "committed": "2026-11-23T09:00:00Z",
  "run": "77",
  "attempt": 1,
  "finished": "2026-11-23T09:42:00Z",
  "annotations": {},
  "emulated": false,
  "seconds": 12.3,
  "cache": {
    "hits": 7,
    "misses": 2
  }
}
`)
	twin, err := os.ReadFile(filepath.Join(dir, "app-1f2e3d.linux-arm-v7.digest"))
	assert.NilError(t, err)
	assert.Equal(t, string(twin), r.Digest.String()+"\n")
	info, err := os.Stat(filepath.Join(dir, "app-1f2e3d.linux-arm-v7.json"))
	assert.NilError(t, err)
	assert.Equal(t, info.Mode().Perm(), os.FileMode(0o644))
	assertFiles(t, dir, 2)
}

func TestWrite_without_key(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := sample("linux/amd64")
	r.Key = ""
	assert.NilError(t, record.Write(dir, r))
	found, err := record.Read(dir)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(found, 1))
	assert.Equal(t, found[0].Path, filepath.Join(dir, "linux-amd64.json"))
}

func TestWrite_replaces_only_the_same_thing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*record.Record)
		fails  string
	}{
		"later_build":  {func(r *record.Record) { r.Digest = digest.FromString("new"); r.Attempt = 2 }, ""},
		"other_image":  {func(r *record.Record) { r.Image = "ghcr.io/acme/web" }, "it is the record of ghcr.io/acme/app linux/amd64"},
		"other_target": {func(r *record.Record) { r.Target = "test" }, "(target test)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := sample("linux/amd64")
			assert.NilError(t, record.Write(dir, first))
			second := first
			test.change(&second)
			err := record.Write(dir, second)
			if test.fails != "" {
				assert.ErrorContains(t, err, test.fails)
				found, err := record.Read(dir)
				assert.NilError(t, err)
				assert.Equal(t, found[0].Record.Digest, first.Digest)
				return
			}
			assert.NilError(t, err)
		})
	}
}

func TestWrite_slug_collision(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := sample("linux/riscv64/a-b"), sample("linux/riscv64-a/b")
	assert.Equal(t, a.Stem(), b.Stem())
	assert.NilError(t, record.Write(dir, a))
	assert.ErrorContains(t, record.Write(dir, b), "refusing to replace")
	found, err := record.Read(dir)
	assert.NilError(t, err)
	assert.Equal(t, found[0].Record.Platform, a.Platform)
}

func TestWrite_keeps_a_strange_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "app-1f2e3d.linux-amd64.json")
	assert.NilError(t, os.WriteFile(path, []byte("mine"), 0o600))
	assert.ErrorContains(t, record.Write(dir, sample("linux/amd64")), path)
	data, err := os.ReadFile(path)
	assert.NilError(t, err)
	assert.Equal(t, string(data), "mine")
}

func TestWrite_refuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*record.Record)
		why    string
	}{
		"no_platform":         {func(r *record.Record) { r.Platform = "" }, `platform ""`},
		"os_alone":            {func(r *record.Record) { r.Platform = "linux" }, `platform "linux"`},
		"path_in_key":         {func(r *record.Record) { r.Key = "../app" }, `key "../app"`},
		"digest":              {func(r *record.Record) { r.Digest = "sha256:12" }, "sha256:12"},
		"size":                {func(r *record.Record) { r.Size = 0 }, "size is 0"},
		"media_type":          {func(r *record.Record) { r.MediaType = "" }, "mediaType"},
		"pushed_to_nowhere":   {func(r *record.Record) { r.Image = "" }, "repository (image) is empty"},
		"both_faults_at_once": {func(r *record.Record) { r.Size = 0; r.MediaType = "" }, "size is 0, want that of the manifest in bytes; mediaType is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := sample("linux/amd64")
			test.change(&r)
			err := record.Write(dir, r)
			assert.ErrorIs(t, err, record.ErrInvalid)
			assert.ErrorContains(t, err, test.why)
			assertFiles(t, dir, 0)
		})
	}
}

func TestRead_any_nesting_and_both_forms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, record.Write(filepath.Join(dir, "kma-app-linux-amd64"), sample("linux/amd64")))
	assert.NilError(t, record.Write(filepath.Join(dir, "a", "b", "c"), sample("linux/arm64")))
	bare := digest.FromString("bare")
	write(t, filepath.Join(dir, "kaniko", "linux-s390x.digest"), "  "+bare.String()+"\r\n\n")
	write(t, filepath.Join(dir, "README.md"), "not a record")
	write(t, filepath.Join(dir, ".hidden.json"), "not a record")
	write(t, filepath.Join(dir, ".git", "x.json"), "not a record")

	found, err := record.Read(dir)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(found, 3))
	assert.Equal(t, found[0].Record.Platform, "linux/arm64")
	assert.Equal(t, found[1].Path, filepath.Join(dir, "kaniko", "linux-s390x.digest"))
	assert.Check(t, found[1].Bare())
	assert.DeepEqual(t, found[1].Record, record.Record{Digest: bare})
	assert.Equal(t, found[2].Record.Platform, "linux/amd64")
	assert.DeepEqual(t, found[2].Record.Cache, record.Cache{Hits: 7, Misses: 2})

	one, err := record.Read(found[0].Path)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(one, 1))

	twice, err := record.Read(dir, filepath.Join(dir, "a"), dir)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(twice, 3))

	link := filepath.Join(t.TempDir(), "link")
	assert.NilError(t, os.Symlink(dir, link))
	linked, err := record.Read(link)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(linked, 3))
}

func TestRead_the_later_record_wins(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	type change = func(*record.Record)
	for name, test := range map[string]struct {
		a, b change
		want []string
	}{
		"attempt":          {func(r *record.Record) { r.Attempt = 2 }, func(r *record.Record) { r.Attempt = 1; r.Finished = noon }, []string{"a"}},
		"finished":         {func(r *record.Record) { r.Finished = noon }, func(r *record.Record) { r.Finished = noon.Add(time.Second) }, []string{"b"}},
		"same_digest":      {func(r *record.Record) { r.Digest = digest.FromString("x") }, func(r *record.Record) { r.Digest = digest.FromString("x") }, []string{"a"}},
		"undecided":        {func(*record.Record) {}, func(*record.Record) {}, []string{"a", "b"}},
		"other_run":        {func(r *record.Record) { r.Run = "78" }, func(r *record.Record) { r.Attempt = 2 }, []string{"a", "b"}},
		"other_key":        {func(r *record.Record) { r.Key = "web" }, func(r *record.Record) { r.Attempt = 2 }, []string{"a", "b"}},
		"other_image":      {func(r *record.Record) { r.Image = "ghcr.io/acme/web" }, func(r *record.Record) { r.Attempt = 2 }, []string{"a", "b"}},
		"other_target":     {func(r *record.Record) { r.Target = "test" }, func(r *record.Record) { r.Attempt = 2 }, []string{"a", "b"}},
		"outside_of_ci":    {func(r *record.Record) { r.Run = "" }, func(r *record.Record) { r.Run = ""; r.Attempt = 2 }, []string{"b"}},
		"ten_after_nine":   {func(r *record.Record) { r.Attempt = 10 }, func(r *record.Record) { r.Attempt = 9 }, []string{"a"}},
		"other_platform":   {func(r *record.Record) { r.Platform = "linux/arm64" }, func(r *record.Record) { r.Attempt = 2 }, []string{"a", "b"}},
		"unpushed_is_late": {func(r *record.Record) { r.Pushed = false; r.Attempt = 2 }, func(*record.Record) {}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			a, b := sample("linux/amd64"), sample("linux/amd64")
			a.Digest, b.Digest = digest.FromString("a"), digest.FromString("b")
			test.a(&a)
			test.b(&b)
			assert.NilError(t, record.Write(filepath.Join(dir, "a"), a))
			assert.NilError(t, record.Write(filepath.Join(dir, "b"), b))
			found, err := record.Read(dir)
			assert.NilError(t, err)
			var got []string
			for _, f := range found {
				got = append(got, filepath.Base(filepath.Dir(f.Path)))
			}
			assert.DeepEqual(t, got, test.want)
			superseded := 0
			for _, f := range found {
				superseded += len(f.Superseded)
			}
			assert.Equal(t, superseded+len(found), 2)
		})
	}
}

func TestRead_refuses(t *testing.T) {
	t.Parallel()
	good := func(change func(map[string]any)) string {
		data, err := json.Marshal(sample("linux/amd64"))
		assert.NilError(t, err)
		m := map[string]any{}
		assert.NilError(t, json.Unmarshal(data, &m))
		m["schema"] = record.Schema
		m["unknown"] = "ignored"
		change(m)
		data, err = json.Marshal(m)
		assert.NilError(t, err)
		return string(data)
	}
	set := func(field string, value any) string {
		return good(func(m map[string]any) { m[field] = value })
	}
	for name, test := range map[string]struct{ file, content, why string }{
		"good":                {"x.json", good(func(map[string]any) {}), ""},
		"empty_json":          {"x.json", "", "unexpected end"},
		"bad_json":            {"x.json", "{", "unexpected end"},
		"two_documents":       {"x.json", set("key", "a") + "{}", "after top-level value"},
		"array":               {"x.json", "[]", "cannot unmarshal array"},
		"no_schema":           {"x.json", "{}", `schema is ""`},
		"next_schema":         {"x.json", set("schema", "kaniko-multiarch.record/v2"), "record/v2"},
		"wrong_type":          {"x.json", set("size", "big"), "size"},
		"digest_of_others":    {"x.json", set("digest", "sha512:"+strings.Repeat("a", 128)), "is not sha256"},
		"digest_upper_case":   {"x.json", set("digest", "sha256:"+strings.Repeat("A", 64)), "is not sha256"},
		"no_digest":           {"x.json", set("digest", ""), "is not sha256"},
		"no_platform":         {"x.json", set("platform", ""), `platform ""`},
		"no_size":             {"x.json", set("size", 0), "size is 0"},
		"key_leaves":          {"x.json", set("key", "a/b"), `key "a/b"`},
		"bad_time":            {"x.json", set("finished", "noon"), "noon"},
		"bare_nonsense":       {"x.digest", "sha256:nonsense", "sha256:nonsense"},
		"bare_empty":          {"x.digest", "\n", "is not sha256"},
		"bare_two_lines":      {"x.digest", digest.FromString("a").String() + "\n" + digest.FromString("b").String(), "is not sha256"},
		"bare_no_prefix":      {"x.digest", strings.Repeat("a", 64), "is not sha256"},
		"bare_with_reference": {"x.digest", "app@" + digest.FromString("a").String(), "is not sha256"},
		"huge":                {"x.digest", strings.Repeat(" ", 2<<20), "larger than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, test.file)
			write(t, path, test.content)
			_, err := record.Read(dir)
			if test.why == "" {
				assert.NilError(t, err)
				return
			}
			assert.ErrorIs(t, err, record.ErrInvalid)
			assert.ErrorContains(t, err, path)
			assert.ErrorContains(t, err, test.why)
			assert.Check(t, len(err.Error()) < 500, "the file's content is not for the log")
		})
	}
}

func TestRead_names_every_bad_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.json"), "{")
	write(t, filepath.Join(dir, "a.digest"), digest.FromString("a").String())
	write(t, filepath.Join(dir, "b.digest"), "x")
	_, err := record.Read(dir)
	assert.ErrorContains(t, err, "a.json")
	assert.ErrorContains(t, err, "b.digest")
	assert.Check(t, !strings.Contains(err.Error(), "a.digest"))
}

func TestRead_twin_disagrees(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, record.Write(dir, sample("linux/amd64")))
	twin := filepath.Join(dir, "app-1f2e3d.linux-amd64.digest")
	write(t, twin, digest.FromString("other").String())
	_, err := record.Read(dir)
	assert.ErrorIs(t, err, record.ErrInvalid)
	assert.ErrorContains(t, err, twin)
}

func TestRead_missing_directory(t *testing.T) {
	t.Parallel()
	_, err := record.Read(filepath.Join(t.TempDir(), "digests"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "digests")

	found, err := record.Read(t.TempDir())
	assert.NilError(t, err)
	assert.Assert(t, is.Len(found, 0))
}

func TestKey(t *testing.T) {
	t.Parallel()
	base := record.Identity{Image: "ghcr.io/acme/app", Target: "prod", Dockerfile: "Dockerfile", Context: ".", BuildArgs: []string{"A=1", "B=2"}}
	key := record.Key(base)
	// A golden value: the key is compared across versions of this program.
	assert.Equal(t, key, "app-prod-2f180b")
	assert.NilError(t, record.ValidKey(key))

	same := map[string]func(*record.Identity){
		"argument_order": func(id *record.Identity) { id.BuildArgs = []string{"B=2", "A=1"} },
		"default_file":   func(id *record.Identity) { id.Dockerfile = "" },
		"dot_slash":      func(id *record.Identity) { id.Dockerfile = "./Dockerfile"; id.Context = "./" },
	}
	for name, change := range same {
		id := base
		change(&id)
		assert.Equal(t, record.Key(id), key, name)
	}
	seen := map[string]string{key: "base"}
	for name, change := range map[string]func(*record.Identity){
		"image":      func(id *record.Identity) { id.Image = "ghcr.io/other/app" },
		"tag":        func(id *record.Identity) { id.Tags = []string{"ghcr.io/acme/app:3.11"} },
		"other_tag":  func(id *record.Identity) { id.Tags = []string{"ghcr.io/acme/app:3.12"} },
		"target":     func(id *record.Identity) { id.Target = "" },
		"dockerfile": func(id *record.Identity) { id.Dockerfile = "alpine/Dockerfile" },
		"context":    func(id *record.Identity) { id.Context = "app" },
		"git":        func(id *record.Identity) { id.Context = "https://example.com//a" },
		"git2":       func(id *record.Identity) { id.Context = "https://example.com/a" },
		"value":      func(id *record.Identity) { id.BuildArgs = []string{"A=1", "B=3"} },
		"framing":    func(id *record.Identity) { id.BuildArgs = []string{"A=1B=2"} },
		"fewer":      func(id *record.Identity) { id.BuildArgs = []string{"A=1"} },
	} {
		id := base
		change(&id)
		other := record.Key(id)
		assert.Check(t, seen[other] == "", "%s and %s share %s", name, seen[other], other)
		seen[other] = name
	}
}

func TestKey_readable_part(t *testing.T) {
	t.Parallel()
	for image, want := range map[string]string{
		"docker.io/library/debian":    "debian-",
		"localhost:5000/app":          "app-",
		"localhost:5000/app:3.11":     "app-",
		"ghcr.io/acme/app@sha256:abc": "app-",
		"ghcr.io/Acme/My App":         "my-app-",
		"":                            "image-",
		"--":                          "image-",
	} {
		key := record.Key(record.Identity{Image: image})
		assert.Check(t, strings.HasPrefix(key, want) && len(key) == len(want)+6, "%q: %s", image, key)
		assert.NilError(t, record.ValidKey(key))
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	assert.NilError(t, os.WriteFile(path, []byte(content), 0o644))
}

func assertFiles(t *testing.T, dir string, want int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), want, "%v", entries)
}
