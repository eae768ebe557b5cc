package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
)

// requestPlan asks for the steps of a build, as kaniko's --dryrun does.
const requestPlan = "plan"

// plannedStep is a step that a build would run, unless its result is cached.
type plannedStep struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// printPlan prints the steps in an order in which they can run, a line each.
// What platforms have in common is one step.
func printPlan(ctx context.Context, w *World, driver *local.Driver, o build.Options, asJSON bool) error {
	plan, err := driver.Plan(ctx, o)
	if err != nil {
		annotateError(w, err, nil)
		return err
	}
	steps := []plannedStep{}
	for _, v := range plan.Vertices {
		steps = append(steps, plannedStep{v.Name, v.Location.File, v.Location.Start})
	}
	if asJSON {
		encoder := json.NewEncoder(w.Stdout)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(steps)
	}
	for _, s := range steps {
		at := ""
		if s.Line > 0 {
			at = fmt.Sprintf("%s:%d: ", s.File, s.Line)
		}
		if _, err := fmt.Fprintf(w.Stdout, "%s%s\n", at, s.Name); err != nil {
			return err
		}
	}
	return nil
}
