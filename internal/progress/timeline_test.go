package progress

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestMarkdown(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return time.UnixMilli(int64(1_000_000 + ms)) }
	page := Markdown("Pushed to r.example/a", []ImageRow{{
		Platform: "linux/arm64", Digest: "sha256:x", Size: 1500, LayersReused: 1, LayersBuilt: 2, Time: 1500 * time.Millisecond, Emulated: true,
	}}, []Span{
		{Name: "[1/2] FROM x", Start: at(0), End: at(0), Cached: true},
		{Name: "[2/2] RUN echo a: b; c # `d`\n, <e>", Start: at(10), End: at(2010)},
		{Name: "RUN false", Start: at(20), End: at(20), Failed: true},
	})
	assert.Check(t, is.Equal(page, "### Pushed to r.example/a\n\n"+
		"| Platform | Digest | Size | Layers | Time |\n| --- | --- | --- | --- | --- |\n"+
		"| linux/arm64 | `sha256:x` | 1.5kB | 1 reused, 2 built | 1.5s (emulated) |\n\n"+
		"<details><summary>Steps</summary>\n\n```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n"+
		"  [2/2] RUN echo a b c d e :done, 0, 2000\n  RUN false :crit, 10, 11\n```\n\n</details>\n\n"))
}

// A chart has room for so much: what took longest stays, in its order.
func TestMarkdown_many_steps(t *testing.T) {
	t.Parallel()
	var spans []Span
	start := time.UnixMilli(0)
	for i := range 500 {
		spans = append(spans, Span{Name: fmt.Sprintf("RUN %03d %s", i, strings.Repeat("é", 500)), Start: start, End: start.Add(time.Duration(500-i) * time.Second)})
		start = start.Add(time.Second)
	}
	page := Markdown("a `b` |c| <d>", nil, spans)
	assert.Check(t, is.Equal(strings.Count(page, ":done"), maxBars))
	assert.Check(t, strings.Index(page, "RUN 000") < strings.Index(page, "RUN 039"))
	assert.Check(t, !strings.Contains(page, "RUN 040"))
	assert.Check(t, is.Contains(page, "460 shorter steps"))
	assert.Check(t, strings.HasPrefix(page, "### a &#96;b&#96; &#124;c&#124; &lt;d&gt;\n"), page[:60])
	assert.Check(t, len(page) < 40_000)
}

// groups notes where its calls fall between what is written.
type groups struct{ b *strings.Builder }

func (g groups) Group(title string) { fmt.Fprintf(g.b, "<%s>\n", title) }
func (g groups) EndGroup()          { g.b.WriteString("</>\n") }

func TestGroups(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	d, err := New(Options{Out: &b, Mode: Plain, Groups: groups{&b}})
	assert.NilError(t, err)
	d.Plan(Vertex{ID: "sha256:a", Name: "RUN one"}, Vertex{ID: "sha256:b", Name: "RUN two"})
	for _, id := range []string{"sha256:a", "sha256:b"} {
		d.Start(digest.Digest(id))
		fmt.Fprintln(d.Log(digest.Digest(id), 1), "said "+id)
		d.Done(digest.Digest(id), false, nil)
	}
	assert.NilError(t, d.Close())
	var order []string
	for line := range strings.Lines(b.String()) {
		switch {
		case strings.HasPrefix(line, "<"):
			order = append(order, strings.TrimSpace(line))
		case strings.Contains(line, "said "):
			order = append(order, strings.TrimSpace(line[strings.Index(line, "said "):]))
		}
	}
	assert.Check(t, is.DeepEqual(order, []string{"<#1 RUN one>", "said sha256:a", "</>", "<#2 RUN two>", "said sha256:b", "</>"}))
	assert.Check(t, is.Len(d.Timeline(), 2))
	assert.Check(t, is.Equal(d.Timeline()[0].Name, "RUN one"))
}
