package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Span is when a step ran.
type Span struct {
	Name           string
	Start, End     time.Time
	Cached, Failed bool
}

// Timeline is what ran, in the order in which it started. It is complete after
// Close, and may only be asked for then.
func (d *Display) Timeline() []Span { return d.spans }

func (b *board) spans() []Span {
	var out []Span
	for _, v := range b.order {
		if v.started.IsZero() || v.ended.IsZero() {
			continue
		}
		out = append(out, Span{Name: v.Name, Start: v.started, End: v.ended, Cached: v.result.cached, Failed: v.result.failed()})
	}
	slices.SortStableFunc(out, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return out
}

const (
	// maxBars is how many steps a chart shows: those that took longest.
	maxBars = 40
	// maxBar is how much of a step's name is shown.
	maxBar = 60
)

// Markdown is a page about a build: a table of the images and a chart of the
// steps.
func Markdown(title string, rows []ImageRow, spans []Span) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", inline(title))
	if len(rows) > 0 {
		b.WriteString("| Platform | Digest | Size | Layers | Time |\n| --- | --- | --- | --- | --- |\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | `%s` | %s | %d reused, %d built | %s |\n",
				inline(r.Platform), r.Digest, size(r.Size), r.LayersReused, r.LayersBuilt, rowTime(r))
		}
		b.WriteString("\n")
	}
	gantt(&b, spans)
	return b.String()
}

// gantt draws what took time. What was in the cache took none.
func gantt(b *strings.Builder, spans []Span) {
	spans = slices.DeleteFunc(slices.Clone(spans), func(s Span) bool { return s.Cached })
	left := 0
	if len(spans) == 0 {
		return
	}
	origin := spans[0].Start
	if len(spans) > maxBars {
		slices.SortStableFunc(spans, func(a, b Span) int { return cmp.Compare(b.End.Sub(b.Start), a.End.Sub(a.Start)) })
		left = len(spans) - maxBars
		spans = spans[:maxBars]
		slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	}
	b.WriteString("<details><summary>Steps</summary>\n\n```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n")
	for _, s := range spans {
		state := "done"
		if s.Failed {
			state = "crit"
		}
		from := s.Start.Sub(origin).Milliseconds()
		fmt.Fprintf(b, "  %s :%s, %d, %d\n", bar(s.Name), state, from, max(from+1, s.End.Sub(origin).Milliseconds()))
	}
	b.WriteString("```\n\n")
	if left > 0 {
		fmt.Fprintf(b, "%d shorter steps are not shown.\n\n", left)
	}
	b.WriteString("</details>\n\n")
}

// bar is a name without what means something in a chart, or ends it.
func bar(name string) string {
	name = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if strings.ContainsRune(":;#,%`\"<>{}", r) {
			return ' '
		}
		return r
	}, name)), " ")
	if runes := []rune(name); len(runes) > maxBar {
		name = string(runes[:maxBar-1]) + "…"
	}
	return cmp.Or(name, "step")
}

// inline is text that Markdown leaves alone.
func inline(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "|", "&#124;", "`", "&#96;", "*", "&#42;", "_", "&#95;", "[", "&#91;", "@", "&#64;", "\n", " ").Replace(s)
}
