package frontend

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/pb"
)

// Requests that the front end answers instead of making a graph.
const (
	RequestCheck   = "check"
	RequestOutline = "outline"
	RequestTargets = "targets"
)

// Answer is what the front end says to a request: text for people, and JSON in
// BuildKit's form.
type Answer struct{ Text, JSON []byte }

// Ask asks the front end about the Dockerfile: RequestOutline for the arguments,
// secrets and agents of the target, RequestTargets for the stages, RequestCheck
// for what its checks find.
func Ask(ctx context.Context, o Options, request string) (*Answer, error) {
	id, ok := map[string]string{
		RequestCheck:   lint.RequestLint,
		RequestOutline: outline.RequestSubrequestsOutline,
		RequestTargets: targets.RequestTargets,
	}[request]
	if !ok {
		return nil, fmt.Errorf("the front end has no answer to %q", request)
	}
	c := newClient(o)
	c.attrs["requestid"] = id
	res, err := c.run(ctx)
	if err != nil {
		return nil, locate(err, o)
	}
	return &Answer{Text: res.Metadata["result.txt"], JSON: res.Metadata["result.json"]}, nil
}

// Finding is one thing that the checks of a Dockerfile found.
type Finding struct {
	Warning
	// Rule is the name of the check.
	Rule string
	// Excerpt shows the lines with a caret; it may be empty.
	Excerpt string
}

// Findings are what the checks found, in the order of the lines. The error is an
// *Error where the Dockerfile cannot be built at all; what was found besides is
// returned with it.
func (o *Options) Findings(a *Answer) ([]Finding, error) {
	var results lint.LintResults
	if err := json.Unmarshal(a.JSON, &results); err != nil {
		return nil, fmt.Errorf("reading the result of the checks: %w", err)
	}
	var out []Finding
	for _, w := range results.Warnings {
		f := Finding{Rule: w.RuleName, Warning: Warning{Text: w.Detail, URL: w.URL, Detail: w.Description}}
		f.File, f.Line, f.Excerpt = o.place(results.Sources, w.Location)
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	if results.Error == nil {
		return out, nil
	}
	e := &Error{}
	e.File, e.Line, e.Excerpt = o.place(results.Sources, &results.Error.Location)
	// The line stands before the text when it is shown.
	e.Err = errors.New(strings.TrimPrefix(results.Error.Message, fmt.Sprintf("dockerfile parse error on line %d: ", e.Line)))
	return out, e
}

// place is where in the user's files a location is.
func (o *Options) place(sources []*pb.SourceInfo, l *pb.Location) (file string, line int, text string) {
	file = o.displayName(o.Filename)
	if l == nil || l.SourceIndex < 0 || int(l.SourceIndex) >= len(sources) || sources[l.SourceIndex] == nil {
		return file, 0, ""
	}
	source := sources[l.SourceIndex]
	file = o.displayName(source.Filename)
	if len(l.Ranges) == 0 {
		return file, 0, ""
	}
	first, last := l.Ranges[0].GetStart().GetLine(), l.Ranges[len(l.Ranges)-1].GetEnd().GetLine()
	return file, int(first), excerpt(string(source.Data), int(first), int(last))
}
