package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/frontend"
)

// checkFlags ask about the Dockerfile instead of building it.
type checkFlags struct {
	Check bool   `help:"Check the Dockerfile and build nothing (short for --call=check)."`
	Call  string `default:"build" placeholder:"METHOD" help:"build, or what to print instead: check, outline (the target's arguments), targets or plan (the steps to run), with an optional ,format=json."`
}

// method is what to ask the front end for; empty builds.
func (f checkFlags) method() (request string, asJSON bool, err error) {
	request, format, _ := strings.Cut(f.Call, ",")
	switch format {
	case "", "format=text":
	case "format=json":
		asJSON = true
	default:
		return "", false, usagef("--call %s: after the method only format=json or format=text can follow", f.Call)
	}
	switch request {
	case "", "build":
		request = ""
		if f.Check {
			request = frontend.RequestCheck
		}
	case "lint":
		request = frontend.RequestCheck
	case frontend.RequestCheck, frontend.RequestOutline, frontend.RequestTargets, requestPlan:
	default:
		return "", false, usagef("--call %s: use build, check, outline, targets or plan", f.Call)
	}
	if f.Check && request != frontend.RequestCheck {
		return "", false, usagef("--check and --call=%s: use one of them", request)
	}
	return request, asJSON, nil
}

// foundError says that the checks found something.
type foundError struct{ n int }

func (e *foundError) Error() string {
	what := "1 check has"
	if e.n > 1 {
		what = fmt.Sprintf("%d checks have", e.n)
	}
	return what + ` failed: change the lines above, or put "# check=skip=RULE" on top of the Dockerfile`
}

// ask prints the answer to a request about the Dockerfile.
func (c *buildCommand) ask(ctx context.Context, w *World, request string, asJSON bool) error {
	o, err := c.options(w)
	if err != nil {
		return err
	}
	client, err := newClient(w, o.Registries, c.Verbose)
	if err != nil {
		return err
	}
	driver := &local.Driver{Registry: client, LookupEnv: w.LookupEnv, Stdin: w.Stdin}
	if request == requestPlan {
		return printPlan(ctx, w, driver, o, asJSON)
	}
	answer, found, err := driver.Ask(ctx, o, request)
	if answer == nil {
		annotateError(w, err, nil)
		return err
	}
	text := string(answer.Text)
	switch {
	case asJSON:
		text = string(answer.JSON) + "\n"
	case request == frontend.RequestCheck:
		text = findings(found, err)
	}
	if _, err := fmt.Fprint(w.Stdout, text); err != nil {
		return err
	}
	for _, f := range found {
		annotate(w, "warning", f.File, f.Line, f.Rule, f.Text)
	}
	annotateError(w, err, nil)
	if err == nil && len(found) > 0 {
		return &foundError{len(found)}
	}
	return err
}

// findings is what was found, for people.
func findings(list []frontend.Finding, err error) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "WARNING: %s", f.Rule)
		if f.URL != "" {
			fmt.Fprintf(&b, " - %s", f.URL)
		}
		fmt.Fprintf(&b, "\n%s\n", f.Text)
		if f.Line > 0 {
			fmt.Fprintf(&b, "%s:%d\n%s", f.File, f.Line, f.Excerpt)
		}
		b.WriteString("\n")
	}
	switch {
	case err != nil:
	case len(list) == 0:
		b.WriteString("Check complete, no warnings found.\n")
	case len(list) == 1:
		b.WriteString("Check complete, 1 warning has been found!\n")
	default:
		fmt.Fprintf(&b, "Check complete, %d warnings have been found!\n", len(list))
	}
	return b.String()
}
