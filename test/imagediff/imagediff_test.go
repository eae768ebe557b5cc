package imagediff

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"gotest.tools/v3/assert"
)

// item is a tar entry with content.
type item struct {
	tar.Header
	content string
}

func regular(name, content string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func directory(name string) item {
	return item{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, ""}
}

func link(name, target string) item {
	return item{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hardLink(name, target string) item {
	return item{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func device(kind byte, minor int64) item {
	return item{tar.Header{Typeflag: kind, Name: "dev", Devmajor: 1, Devminor: minor}, ""}
}

// with changes an item's header.
func (i item) with(change func(h *tar.Header)) item {
	change(&i.Header)
	return i
}

func layer(t *testing.T, items ...item) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		h := i.Header
		h.Size = int64(len(i.content))
		assert.NilError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, i.content)
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
	assert.NilError(t, err)
	return l
}

func image(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	assert.NilError(t, err)
	return img
}

func TestFiles(t *testing.T) {
	t.Parallel()
	xattr := func(value string) item {
		return regular("f", "").with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.k": value} })
	}
	two := []item{regular("f", "x"), regular("g", "x")}
	cases := map[string]struct {
		a, b []item
		want []string
	}{
		"same":           {two, two, nil},
		"order":          {two, []item{two[1], two[0]}, nil},
		"missing":        {two, two[:1], []string{"/g: exists only in the first"}},
		"additional":     {two[:1], two, []string{"/g: exists only in the second"}},
		"content":        {two[:1], []item{regular("f", "y")}, []string{"/f: sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa"}},
		"type":           {[]item{regular("f", "")}, []item{directory("f")}, []string{"/f: type: file | directory"}},
		"mode":           {[]item{regular("f", "")}, []item{regular("f", "").with(func(h *tar.Header) { h.Mode = 0o4755 })}, []string{"/f: mode: 0644 | 4755"}},
		"directory_mode": {[]item{directory("d")}, []item{directory("d").with(func(h *tar.Header) { h.Mode = 0o700 })}, []string{"/d: mode: 0755 | 0700"}},
		"uid":            {[]item{regular("f", "")}, []item{regular("f", "").with(func(h *tar.Header) { h.Uid = 5 })}, []string{"/f: uid: 0 | 5"}},
		"gid":            {[]item{regular("f", "")}, []item{regular("f", "").with(func(h *tar.Header) { h.Gid = 5 })}, []string{"/f: gid: 0 | 5"}},
		"link_target":    {[]item{link("l", "a")}, []item{link("l", "b")}, []string{"/l: target: a | b"}},
		"device_number":  {[]item{device(tar.TypeChar, 3)}, []item{device(tar.TypeChar, 5)}, []string{"/dev: device: 1:3 | 1:5"}},
		"device_type":    {[]item{device(tar.TypeChar, 3)}, []item{device(tar.TypeBlock, 3)}, []string{"/dev: type: character device | block device"}},
		"fifo":           {[]item{device(tar.TypeFifo, 0)}, []item{regular("dev", "")}, []string{"/dev: type: fifo | file"}},
		"xattr_value":    {[]item{xattr("1")}, []item{xattr("2")}, []string{`/f: xattr user.k: "1" | "2"`}},
		"xattr_missing":  {[]item{xattr("")}, []item{regular("f", "")}, []string{`/f: xattr user.k: "" | none`}},
		"hard_link": {
			[]item{two[0], hardLink("g", "f")}, two,
			[]string{"/f: hard links: /f /g | ", "/g: hard links: /f /g | "},
		},
		"hard_link_spelling": {[]item{two[0], hardLink("g", "f")}, []item{two[1], hardLink("./f", "./g")}, nil},
		"implied_directory":  {[]item{regular("d/f", "")}, []item{directory("d"), regular("d/f", "")}, nil},
		"through_a_link":     {[]item{directory("usr"), link("bin", "usr"), regular("bin/f", "")}, []item{directory("usr"), link("bin", "usr"), regular("usr/f", "")}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Images(image(t, layer(t, c.a...)), image(t, layer(t, c.b...)), Options{})
			assert.NilError(t, err)
			assert.DeepEqual(t, got, c.want)
		})
	}
}

// TestLayers compares two layers with the one that they amount to.
func TestLayers(t *testing.T) {
	t.Parallel()
	lower := []item{directory("d"), regular("d/a", "a"), regular("d/b", "b"), link("l", "d")}
	cases := map[string]struct{ upper, want []item }{
		"whiteout":             {[]item{regular("d/.wh.a", "")}, []item{directory("d"), regular("d/b", "b"), link("l", "d")}},
		"whiteout_through":     {[]item{regular("l/.wh.a", "")}, []item{directory("d"), regular("d/b", "b"), link("l", "d")}},
		"whiteout_directory":   {[]item{regular(".wh.d", "")}, []item{link("l", "d")}},
		"whiteout_and_again":   {[]item{regular("d/a", "new"), regular("d/.wh.a", "")}, []item{directory("d"), regular("d/a", "new"), regular("d/b", "b"), link("l", "d")}},
		"opaque":               {[]item{regular("d/c", "c"), regular("d/.wh..wh..opq", "")}, []item{directory("d"), regular("d/c", "c"), link("l", "d")}},
		"file_over_directory":  {[]item{regular("d", "x")}, []item{regular("d", "x"), link("l", "d")}},
		"directory_over_link":  {[]item{directory("l"), regular("l/c", "c")}, append(lower[:3:3], directory("l"), regular("l/c", "c"))},
		"directory_again":      {[]item{directory("d")}, lower},
		"file_through_a_link":  {[]item{regular("l/c", "c")}, append(lower[:4:4], regular("d/c", "c"))},
		"hard_link_to_a_lower": {[]item{hardLink("c", "d/a")}, append(lower[:4:4], hardLink("c", "d/a"))},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := flatten(image(t, layer(t, lower...), layer(t, c.upper...)), nil)
			assert.NilError(t, err)
			want, err := flatten(image(t, layer(t, c.want...)), nil)
			assert.NilError(t, err)
			var r report
			r.trees(got, want, Options{})
			assert.DeepEqual(t, r.lines, []string(nil))
		})
	}
}

func TestBrokenHardLink(t *testing.T) {
	t.Parallel()
	_, err := flatten(image(t, layer(t, hardLink("a", "b"))), nil)
	assert.Error(t, err, "layer 0: /a is a hard link to /b, which does not exist")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	at := func(year int) v1.Time { return v1.Time{Time: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)} }
	base := v1.ConfigFile{
		Architecture: "arm64", OS: "linux", Created: at(2001),
		Config:  v1.Config{Env: []string{"A=1", "B=2"}, User: "u", Labels: map[string]string{"k": "v"}},
		History: []v1.History{{CreatedBy: "one", Created: at(2001)}, {CreatedBy: "two", Comment: "c", EmptyLayer: true}},
	}
	cases := map[string]struct {
		change  func(c *v1.ConfigFile)
		options Options
		want    []string
	}{
		"same":           {func(c *v1.ConfigFile) {}, Options{Times: true}, nil},
		"platform":       {func(c *v1.ConfigFile) { c.Variant = "v8" }, Options{}, []string{`variant: none | "v8"`}},
		"env_order":      {func(c *v1.ConfigFile) { c.Config.Env = []string{"B=2", "A=1"} }, Options{}, []string{`config.Env: ["A=1","B=2"] | ["B=2","A=1"]`}},
		"user":           {func(c *v1.ConfigFile) { c.Config.User = "" }, Options{}, []string{`config.User: "u" | none`}},
		"label":          {func(c *v1.ConfigFile) { c.Config.Labels = map[string]string{"k": "w"} }, Options{}, []string{`config.Labels.k: "v" | "w"`}},
		"healthcheck":    {func(c *v1.ConfigFile) { c.Config.Healthcheck = &v1.HealthConfig{Retries: 2} }, Options{}, []string{`config.Healthcheck: none | {"Retries":2}`}},
		"history":        {func(c *v1.ConfigFile) { c.History[0].CreatedBy = "uno" }, Options{}, []string{`history[0].created_by: "one" | "uno"`}},
		"comment":        {func(c *v1.ConfigFile) { c.History[1].Comment = "" }, Options{}, []string{`history[1].comment: "c" | none`}},
		"empty_layer":    {func(c *v1.ConfigFile) { c.History[1].EmptyLayer = false }, Options{}, []string{`history[1].empty_layer: true | none`}},
		"history_length": {func(c *v1.ConfigFile) { c.History = c.History[:1] }, Options{}, []string{`history[1]: {"comment":"c","created_by":"two","empty_layer":true} | none`}},
		"times_ignored":  {func(c *v1.ConfigFile) { c.Created, c.History[0].Created = at(2002), at(2002) }, Options{}, nil},
		"times": {
			func(c *v1.ConfigFile) { c.Created, c.History[0].Created = at(2002), at(2002) }, Options{Times: true},
			[]string{`created: "2001-01-01T00:00:00Z" | "2002-01-01T00:00:00Z"`, `history[0].created: "2001-01-01T00:00:00Z" | "2002-01-01T00:00:00Z"`},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := mutate.ConfigFile(empty.Image, base.DeepCopy())
			assert.NilError(t, err)
			changed := base.DeepCopy()
			c.change(changed)
			b, err := mutate.ConfigFile(empty.Image, changed)
			assert.NilError(t, err)
			got, err := Images(a, b, c.options)
			assert.NilError(t, err)
			assert.DeepEqual(t, got, c.want)
		})
	}
}

func TestNumberOfLayers(t *testing.T) {
	t.Parallel()
	one := layer(t, regular("f", "x"), regular("g", "x"))
	got, err := Images(image(t, one), image(t, layer(t, regular("f", "x")), layer(t, regular("g", "x"))), Options{})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{"history[1]: none | {}", "rootfs.diff_ids: 1 | 2"})
}

func TestFileTimes(t *testing.T) {
	t.Parallel()
	at := func(second int64) v1.Image {
		return image(t, layer(t, regular("f", "").with(func(h *tar.Header) { h.ModTime = time.Unix(second, 0) })))
	}
	got, err := Images(at(1), at(2), Options{})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string(nil))

	got, err = Images(at(1), at(2), Options{Times: true})
	assert.NilError(t, err)
	assert.Equal(t, len(got), 2, "the diff ID and the file: %q", got)
	assert.Equal(t, got[1], "/f: modified: 1970-01-01T00:00:01Z | 1970-01-01T00:00:02Z")
}

// TestFileTimes_of_two_builds is about a file and a directory, whose times a
// clock made or not.
func TestFileTimes_of_two_builds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	since := now.Add(-time.Minute)
	old := time.Unix(1, 0)
	for name, c := range map[string]struct {
		a, b time.Time
		want int
	}{
		"both_clocks":     {now, now.Add(-time.Second), 0},
		"truncated_clock": {since.Truncate(time.Second), now, 0},
		"fixed":           {time.Unix(1, 0), time.Unix(1, 0), 0},
		"parts_of_second": {time.Unix(1, 5), time.Unix(1, 0), 0},
		"other":           {old, time.Unix(2, 0), 2},
		"first_clock":     {now, old, 2},
		"second_clock":    {old, now, 1},
		"future":          {now.Add(time.Hour), now, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := func(when time.Time) v1.Image {
				set := func(h *tar.Header) { h.ModTime, h.Format = when, tar.FormatPAX }
				return image(t, layer(t, regular("f", "").with(set), directory("d").with(set)))
			}
			got, err := Images(at(c.a), at(c.b), Options{Since: since, Layers: &Layers{}})
			assert.NilError(t, err)
			assert.Equal(t, len(got), c.want, "%q", got)
		})
	}
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	index := func(content string, platforms ...v1.Platform) v1.ImageIndex {
		var adds []mutate.IndexAddendum
		for _, p := range platforms {
			img := image(t, layer(t, regular("f", content+p.Architecture)))
			adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
		}
		return mutate.AppendManifests(empty.Index, adds...)
	}
	amd := v1.Platform{OS: "linux", Architecture: "amd64"}
	arm := v1.Platform{OS: "linux", Architecture: "arm64"}
	armV8 := v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	attestation := v1.Platform{OS: "unknown", Architecture: "unknown"}
	cases := map[string]struct {
		a, b v1.ImageIndex
		want []string
	}{
		"same":        {index("", amd, arm), index("", arm, amd), nil},
		"variant":     {index("", arm), index("", armV8), nil},
		"attestation": {index("", amd, attestation), index("", amd), nil},
		"missing":     {index("", amd, arm), index("", amd), []string{"linux/arm64: exists only in the first"}},
		"additional":  {index("", amd), index("", amd, arm), []string{"linux/arm64: exists only in the second"}},
		"content":     {index("", amd), index("more", amd), []string{"linux/amd64: /f: size: 5 | 9", "linux/amd64: /f: sha256: "}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Indexes(c.a, c.b, Options{})
			assert.NilError(t, err)
			assert.Equal(t, len(got), len(c.want), "%q", got)
			for i := range got {
				assert.Assert(t, len(got[i]) >= len(c.want[i]) && got[i][:len(c.want[i])] == c.want[i], got[i])
			}
		})
	}
}
