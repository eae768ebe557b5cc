package cli

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"github.com/org/kaniko-multiarch/internal/ci"
)

// actionName is the command that the GitHub actions call. What follows it is
// the command to run; all else comes from the inputs of the step.
const actionName = "action"

// actionCommands can be a step of their own.
var actionCommands = []string{"build", "matrix", "merge", "doctor"}

// runAction runs a command with the inputs of a step in GitHub Actions. What
// they mean there and not elsewhere is translated here: the command finds
// nothing but inputs and variables with the names of its flags.
func runAction(ctx context.Context, args []string, w World) int {
	command := "build"
	if len(args) > 0 && args[0] != "" {
		command = args[0]
	}
	console := ci.NewConsole(w.Stderr)
	defer console.Close()
	w.console, w.Stdout, w.Stderr = console, console, console
	if !slices.Contains(actionCommands, command) || len(args) > 1 {
		return report(w, usagef("input command: %q is not one of %s", strings.Join(args, " "), strings.Join(actionCommands, ", ")))
	}
	env, masks, err := translate(command, w.LookupEnv)
	for _, secret := range masks {
		console.Mask(secret)
	}
	if err != nil {
		return report(w, err)
	}
	w.LookupEnv = env.lookup
	return run(ctx, []string{command}, w)
}

// stepInputs are the environment of a command in a step.
type stepInputs struct {
	set  map[string]string
	base func(string) (string, bool)
}

func (s *stepInputs) lookup(name string) (string, bool) {
	if v, ok := s.set[name]; ok {
		return v, true
	}
	return s.base(name)
}

// input is the value of an input, without the white space that YAML leaves.
func (s *stepInputs) input(name string) string {
	v, _ := s.lookup(inputVariable(name))
	return strings.TrimSpace(v)
}

// either reports whether one of the spellings of a flag has a value.
func (s *stepInputs) either(flag string) bool {
	for _, name := range spellings(flag) {
		if s.input(name) != "" {
			return true
		}
	}
	return false
}

func (s *stepInputs) give(name, value string) { s.set[inputVariable(name)] = value }

// translate returns the environment, and the secrets in the inputs, which must
// not be shown. GitHub masks those that it knows; others are computed.
func translate(command string, base func(string) (string, bool)) (*stepInputs, []string, error) {
	s := &stepInputs{set: map[string]string{}, base: base}
	masks, err := authMasks(s.input("registry-auth"))
	if err != nil {
		return s, masks, err
	}
	if token := s.input("github-token"); token != "" {
		masks = append(masks, token)
		s.set["GITHUB_TOKEN"] = token
	}
	if err := s.row(command); err != nil {
		return s, masks, err
	}
	if command != "build" {
		return s, masks, nil
	}
	// As in build-push-action, and so that a pull request publishes nothing.
	if !s.either("push") {
		s.give("push", "false")
	}
	s.checkout()
	secrets, err := s.secrets()
	return s, append(masks, secrets...), err
}

// checkout makes the commit of the run the context where nobody has checked it
// out and no other is given, as in build-push-action.
func (s *stepInputs) checkout() {
	get := func(name string) string {
		v, _ := s.lookup(name)
		return v
	}
	server, repository, commit := get("GITHUB_SERVER_URL"), get("GITHUB_REPOSITORY"), get("GITHUB_SHA")
	there, err := os.ReadDir(get("GITHUB_WORKSPACE"))
	if err != nil || len(there) > 0 || s.either("context") || get(environmentVariable("context")) != "" {
		return
	}
	if server == "" || repository == "" || commit == "" {
		return
	}
	s.give("context", strings.TrimSuffix(server, "/")+"/"+repository+".git#"+commit)
	if token := s.input("github-token"); token != "" && get("GIT_TOKEN") == "" {
		s.set["GIT_TOKEN"] = token
	}
}

// rowFields are the fields of a row of the matrix, and of its merges, with the
// flag that each is for.
var rowFields = map[string][][2]string{
	"build": {
		{"image", "image"}, {"platform", "platform"}, {"key", "key"}, {"target", "target"},
		{"dockerfile", "dockerfile"}, {"context", "context"}, {"buildArgs", "build-arg"},
	},
	"merge": {{"key", "key"}, {"tags", "destination"}, {"platforms", "platform"}},
}

// row takes from the input row, which is a row of the matrix as JSON, what no
// other input gives.
func (s *stepInputs) row(command string) error {
	text := s.input("row")
	if text == "" || text == "null" {
		return nil
	}
	row := map[string]any{}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return usagef("input row: %w: give ${{ toJSON(matrix) }}", err)
	}
	fields, ok := rowFields[command]
	if !ok {
		return usagef("input row: only build and merge have one")
	}
	for _, field := range fields {
		name, flag := field[0], field[1]
		value, ok := row[name].(string)
		if !ok && row[name] != nil {
			return usagef("input row: %s is no text: give ${{ toJSON(matrix) }} of the matrix that this tool made", name)
		}
		if value != "" && !s.either(flag) {
			s.give(flag, value)
		}
	}
	return nil
}

// secretVariable is where the value of a secret is that an input gives. No
// process can have such a variable, nor a step of the build.
const secretVariable = "secret input "

// secrets makes the three inputs of build-push-action the one flag: secrets are
// NAME=VALUE, secret-envs NAME=VARIABLE, secret-files NAME=PATH. It returns the
// values.
func (s *stepInputs) secrets() ([]string, error) {
	var flags, values []string
	for _, kind := range []struct{ input, from string }{{"secrets", ""}, {"secret-envs", "env"}, {"secret-files", "src"}} {
		lines, err := records(s.input(kind.input))
		if err != nil {
			return values, usagef("input %s: %w", kind.input, err)
		}
		s.give(kind.input, "")
		for _, line := range lines {
			name, value, ok := strings.Cut(line, "=")
			if !ok || name == "" || strings.Contains(name, ",") {
				// What it is instead may be the secret.
				return values, usagef("input %s: a line is not NAME=VALUE", kind.input)
			}
			if kind.from != "" {
				flags = append(flags, "id="+name+","+kind.from+"="+value)
				continue
			}
			values = append(values, value)
			s.set[secretVariable+name] = value
			flags = append(flags, "id="+name+",env="+secretVariable+name)
		}
	}
	if own := s.input("secret"); own != "" {
		flags = append(flags, own)
	}
	s.give("secret", strings.Join(flags, "\n"))
	return values, nil
}
