package matrix

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
)

// Runner is what a CI system picks a machine by: a label, a list of labels, or
// GitHub's object of group and labels. The zero value is no label at all.
type Runner struct {
	// Group is GitHub's runner group; empty for none.
	Group  string
	Labels []string
	// many keeps a list of one label a list.
	many bool
}

// MarshalJSON writes the form that the runner was given in.
func (r Runner) MarshalJSON() ([]byte, error) {
	var labels any = r.Labels
	if !r.many {
		labels = strings.Join(r.Labels, "")
	}
	if r.Group == "" {
		return json.Marshal(labels)
	}
	if len(r.Labels) == 0 {
		labels = nil
	}
	return json.Marshal(struct {
		Group  string `json:"group"`
		Labels any    `json:"labels,omitempty"`
	}{r.Group, labels})
}

// Runners says which platform is built where. The zero value is empty.
type Runners struct {
	rules []rule
}

type rule struct {
	// path is empty for the default, else linux, linux/arm, linux/arm/v7.
	path   []string
	runner Runner
}

// GitHubRunners are GitHub's own: free for public repositories.
func GitHubRunners() Runners {
	return fixed("ubuntu-24.04", "ubuntu-24.04-arm")
}

// GitLabRunners are those of gitlab.com that every tier has.
func GitLabRunners() Runners {
	return fixed("saas-linux-small-amd64", "saas-linux-small-arm64")
}

// JenkinsRunners are labels that many installations give their agents.
func JenkinsRunners() Runners {
	return fixed("amd64", "arm64")
}

func fixed(byDefault, arm64 string) Runners {
	return Runners{rules: []rule{
		{runner: Runner{Labels: []string{byDefault}}},
		{path: []string{"linux", "arm64"}, runner: Runner{Labels: []string{arm64}}},
	}}
}

// ParseRunners reads PLATFORM=RUNNER, one a line. PLATFORM is "default" or the
// beginning of a platform (linux, linux/arm); RUNNER is a label, a JSON array
// of labels, or a JSON object with group and labels. A single RUNNER without
// PLATFORM is the default.
func ParseRunners(text string) (Runners, error) {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	var r Runners
	for _, line := range lines {
		key, value, ok := cutRule(line)
		if !ok && len(lines) > 1 {
			return Runners{}, fmt.Errorf("runner %q: write it as linux/arm64=LABEL, or default=LABEL", line)
		}
		if !ok {
			key, value = "default", line
		}
		path, err := parseRulePath(key)
		if err != nil {
			return Runners{}, fmt.Errorf("runner %q: %w", line, err)
		}
		if slices.ContainsFunc(r.rules, func(other rule) bool { return slices.Equal(other.path, path) }) {
			return Runners{}, fmt.Errorf("runner %q: %s is given twice", line, key)
		}
		runner, err := parseRunner(strings.TrimSpace(value))
		if err != nil {
			return Runners{}, fmt.Errorf("runner %q: %w", line, err)
		}
		r.rules = append(r.rules, rule{path, runner})
	}
	return r, nil
}

// cutRule splits at the first '=' unless that is part of a JSON value.
func cutRule(line string) (key, value string, ok bool) {
	if strings.HasPrefix(line, "[") || strings.HasPrefix(line, "{") {
		return "", line, false
	}
	key, value, ok = strings.Cut(line, "=")
	return strings.TrimSpace(key), value, ok
}

func parseRulePath(key string) ([]string, error) {
	key = strings.ToLower(key)
	if key == "default" {
		return nil, nil
	}
	// An operating system alone is no platform; any architecture will do to
	// find out whether there is such a system.
	if p, err := platform.Parse(key + "/amd64"); err == nil && !strings.Contains(key, "/") {
		return []string{p.OS}, nil
	}
	p, err := platform.Parse(key)
	if err != nil {
		return nil, err
	}
	// linux/arm stands for all its variants here.
	if key == "arm" || strings.HasSuffix(key, "/arm") {
		return []string{p.OS, p.Architecture}, nil
	}
	return segments(p), nil
}

func segments(p ocispecs.Platform) []string {
	path := []string{p.OS, p.Architecture}
	if p.Variant != "" {
		path = append(path, p.Variant)
	}
	return path
}

func parseRunner(value string) (Runner, error) {
	switch {
	case value == "":
		return Runner{}, fmt.Errorf("it names no runner")
	case strings.HasPrefix(value, "["):
		labels, err := parseLabels([]byte(value))
		return Runner{Labels: labels, many: true}, err
	case strings.HasPrefix(value, "{"):
		return parseGroup(value)
	}
	return Runner{Labels: []string{value}}, nil
}

func parseGroup(value string) (Runner, error) {
	var object struct {
		Group  string          `json:"group"`
		Labels json.RawMessage `json:"labels"`
	}
	dec := json.NewDecoder(strings.NewReader(value))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&object); err != nil || dec.More() {
		return Runner{}, fmt.Errorf(`not a JSON object of "group" and "labels"`)
	}
	r := Runner{Group: object.Group}
	if object.Labels == nil {
		if r.Group == "" {
			return Runner{}, fmt.Errorf("it names neither group nor labels")
		}
		return r, nil
	}
	var label string
	if json.Unmarshal(object.Labels, &label) == nil && label != "" {
		r.Labels = []string{label}
	} else {
		labels, err := parseLabels(object.Labels)
		if err != nil {
			return Runner{}, err
		}
		r.Labels, r.many = labels, true
	}
	return r, nil
}

func parseLabels(data []byte) ([]string, error) {
	var labels []string
	if err := json.Unmarshal(data, &labels); err != nil {
		return nil, fmt.Errorf(`not a JSON array of labels like ["self-hosted","arm64"]`)
	}
	if len(labels) == 0 || slices.Contains(labels, "") {
		return nil, fmt.Errorf("it has no label, or an empty one")
	}
	return labels, nil
}

// find returns the rule with the longest path that p begins with.
func (r Runners) find(p ocispecs.Platform) (rule, bool) {
	var best rule
	found := false
	path := segments(platform.Normalize(p))
	for _, candidate := range r.rules {
		n := len(candidate.path)
		if n > len(path) || !slices.Equal(candidate.path, path[:n]) {
			continue
		}
		if !found || n > len(best.path) {
			best, found = candidate, true
		}
	}
	return best, found
}

// runner picks the runner of p and the platform that it executes natively.
//
// The user's default goes before a special rule of the CI system's defaults:
// who names one runner for all means all.
func (o Options) runner(p ocispecs.Platform) (Runner, ocispecs.Platform, error) {
	r, ok := o.Runners.find(p)
	if !ok {
		r, ok = o.Defaults.find(p)
	}
	if !ok {
		name := platform.Format(p)
		return Runner{}, p, fmt.Errorf("no runner for %s: add a line %s=LABEL or default=LABEL", name, name)
	}
	return r.runner, r.host(p), nil
}

// defaultRunner is that of what no rule is about. Where there is none, p's does.
func (o Options) defaultRunner(p ocispecs.Platform) (Runner, ocispecs.Platform, error) {
	for _, runners := range []Runners{o.Runners, o.Defaults} {
		for _, r := range runners.rules {
			if len(r.path) == 0 {
				return r.runner, r.host(p), nil
			}
		}
	}
	return o.runner(p)
}

var words = regexp.MustCompile(`[a-z0-9_]+`)

// host guesses the platform of the runner: from labels that name an
// architecture; else, when a rule is about p's architecture, the runner is
// there for it; else it is the common one.
//
// "arm" in a label is 64-bit on GitHub's own runners and 32-bit in the labels
// of self-hosted ones, so it decides last.
func (r rule) host(p ocispecs.Platform) ocispecs.Platform {
	on := func(arch string) ocispecs.Platform { return ocispecs.Platform{OS: "linux", Architecture: arch} }
	arm := false
	for _, label := range r.runner.Labels {
		label = strings.ToLower(label)
		if rest, ok := strings.CutPrefix(label, "ubuntu-"); ok && !strings.ContainsAny(rest, "_/") {
			if strings.HasSuffix(rest, "-arm") {
				return on("arm64")
			}
			if !strings.Contains(rest, "-") {
				return on("amd64")
			}
		}
		for _, word := range words.FindAllString(label, -1) {
			switch word {
			case "x64", "amd64", "x86_64":
				return on("amd64")
			case "arm64", "aarch64":
				return on("arm64")
			case "riscv64", "s390x", "ppc64le", "loong64":
				return on(word)
			case "arm":
				arm = true
			}
		}
	}
	if len(r.path) > 1 {
		return p
	}
	if arm {
		return on("arm64")
	}
	return on("amd64")
}
