package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// The chart brings its own background, for a page that is light or dark.
const (
	chartWidth  = 880
	chartMargin = 20
	barLeft     = 120
	barWhole    = 400 // the length of a peer's time
	barMost     = 1.25
	lineHeight  = 19
	barHeight   = 12

	chartStyle = `text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#d6deeb}` +
		`.t{font-size:15px;font-weight:bold}.h{font-weight:bold}.d{fill:#9fb0c9}` +
		`.met{fill:#2ea76a}.missed{fill:#d98e1f}.free{fill:#5f7fb5}`
)

// peerTitles is how the chart and the table call peers.
var peerTitles = map[string]string{peerKaniko: "kaniko", peerBuildKit: "BuildKit", peerBuildah: "buildah"}

// chart draws the rows that have a peer: bars of our time as a part of theirs.
func chart(rows []row) []byte {
	var body bytes.Buffer
	y := 30
	text := func(x, y int, class, s string) {
		fmt.Fprintf(&body, `<text x="%d" y="%d" class="%s">%s</text>`+"\n", x, y, class, escaped(s))
	}
	text(chartMargin, y, "t", "Time of a build, as a part of another builder's")
	y += lineHeight + 3
	text(chartMargin, y, "d", "shorter is better; line: the other's time; white mark: our target, green is met; medians of runs in turns")
	top := y + 12
	for _, w := range workloads() {
		var bars []row
		for _, r := range rows {
			if r.Workload == w.name && r.Ratio != nil {
				bars = append(bars, r)
			}
		}
		if len(bars) == 0 {
			continue
		}
		y += lineHeight + 12
		text(chartMargin, y, "h", w.name+"  "+w.title)
		for _, r := range bars {
			y += lineHeight
			text(chartMargin, y, "", peerTitles[r.Peer])
			length := min(*r.Ratio, barMost) * barWhole
			fmt.Fprintf(&body, `<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" class="%s"/>`+"\n", barLeft, y-barHeight+2, length, barHeight, verdictClass(r))
			if r.Target != nil {
				fmt.Fprintf(&body, `<rect x="%.1f" y="%d" width="2" height="%d" fill="#ffffff"/>`+"\n", barLeft+*r.Target*barWhole-1, y-barHeight, barHeight+4)
			}
			text(barLeft+int(barMost*barWhole)+10, y, "", fmt.Sprintf("%.0f %%: %s %s beside %s %s", *r.Ratio*100, figure(&r.Ours), r.Unit, figure(r.Theirs), r.Unit))
		}
	}
	bottom := y + 6
	if notes := alonesOf(rows); len(notes) > 0 {
		y += 12
		for _, n := range notes {
			y += lineHeight
			text(chartMargin, y, "d", n)
		}
	}
	var out bytes.Buffer
	height := y + chartMargin
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img">`, chartWidth, height)
	fmt.Fprintf(&out, "<title>Time of a build, as a part of another builder's</title><style>%s</style>\n", chartStyle)
	fmt.Fprintln(&out, `<rect width="100%" height="100%" rx="8" fill="#0b1021"/>`)
	fmt.Fprintf(&out, `<rect x="%d" y="%d" width="1" height="%d" fill="#9fb0c9"/>`+"\n", barLeft+barWhole, top, bottom-top)
	out.Write(body.Bytes())
	fmt.Fprintln(&out, "</svg>")
	return out.Bytes()
}

func verdictClass(r row) string {
	switch {
	case r.Target == nil:
		return "free"
	case r.Met:
		return "met"
	}
	return "missed"
}

// alonesOf are the figures without a peer, a line for each workload.
func alonesOf(rows []row) (lines []string) {
	for _, w := range workloads() {
		var parts []string
		for _, r := range rows {
			if r.Workload == w.name && r.Ratio == nil {
				parts = append(parts, figure(&r.Ours)+" "+r.Unit)
			}
		}
		if len(parts) > 0 {
			lines = append(lines, fmt.Sprintf("%s  %s: %s", w.name, w.title, strings.Join(parts, ", ")))
		}
	}
	return lines
}

func escaped(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) //nolint:errcheck // a Builder takes all
	return b.String()
}
