package matrix

import (
	"encoding/json"
	"io"
	"strings"
)

// jenkinsRow is a row whose runner is what `node(...)` takes.
type jenkinsRow struct {
	Row
	Runner string `json:"runner"`
}

// WriteJenkins writes the plan as JSON whose runners are label expressions.
func (p *Plan) WriteJenkins(w io.Writer) error {
	rows := Document[jenkinsRow]{Include: []jenkinsRow{}}
	for _, r := range p.Matrix.Include {
		if r.Runner.Group != "" {
			return formatError("runner of %s: Jenkins has labels, no groups: write linux/arm64=LABEL, or an expression of labels", r.Platform)
		}
		rows.Include = append(rows.Include, jenkinsRow{r, strings.Join(r.Runner.Labels, " && ")})
	}
	plan := struct {
		Matrix Document[jenkinsRow] `json:"matrix"`
		*Plan
	}{rows, p}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(plan)
}
