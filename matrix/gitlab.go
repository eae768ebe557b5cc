package matrix

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// GitLab says how the jobs of a child pipeline run.
type GitLab struct {
	// JobImage is the image with the program and a shell; empty for runners that
	// have the program themselves.
	JobImage string
	// BuildArguments and MergeArguments are added to every call.
	BuildArguments, MergeArguments []string
}

// WriteGitLab writes the plan as a child pipeline: a job for each row, and one
// for each index. Flags that are the same for all may come as variables of the
// pipeline (KANIKO_MULTIARCH_CACHE).
//
// GitLab CI/CD YAML syntax reference; texts are quoted as JSON, which is YAML.
func (p *Plan) WriteGitLab(w io.Writer, g GitLab) error {
	for _, r := range p.Matrix.Include {
		if r.Runner.Group != "" {
			return formatError("runner of %s: GitLab has tags, no groups: write linux/arm64=TAG or linux/arm64=[\"TAG\",\"TAG\"]", r.Platform)
		}
	}
	var b strings.Builder
	b.WriteString("stages: [build, merge]\n")
	if p.Empty {
		// GitLab refuses a pipeline without jobs.
		b.WriteString("\nnothing to build:\n  stage: build\n  script:\n    - \"true\"\n")
	}
	for _, r := range p.Matrix.Include {
		g.build(&b, r)
	}
	for _, m := range p.Merges.Include {
		g.merge(&b, m, p.Matrix.Include)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (g GitLab) build(b *strings.Builder, r Row) {
	g.head(b, jobName(r), "build")
	if len(r.Runner.Labels) > 0 {
		fmt.Fprintf(b, "  tags: %s\n", quoteAll(r.Runner.Labels))
	}
	args := []string{"build", "--platform", r.Platform, "--key", r.Key, "--digests-to", "digests"}
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	add("--image", r.Image)
	add("--target", r.Target)
	add("--context", r.Context)
	add("--dockerfile", r.Dockerfile)
	if r.BuildArgs != "" {
		for _, arg := range strings.Split(r.BuildArgs, "\n") {
			add("--build-arg", arg)
		}
	}
	g.script(b, append(args, g.BuildArguments...))
	b.WriteString("  artifacts:\n    paths: [digests]\n    expire_in: 1 day\n")
}

func (g GitLab) merge(b *strings.Builder, m Merge, rows []Row) {
	g.head(b, "merge "+m.Key, "merge")
	b.WriteString("  needs:\n")
	for _, r := range rows {
		if r.Key == m.Key {
			fmt.Fprintf(b, "    - %s\n", quote(jobName(r)))
		}
	}
	args := []string{"merge", "--digests-from", "digests", "--key", m.Key, "--platform", m.Platforms, "--dotenv", "merge.env"}
	destination := m.Tags
	if destination == "" {
		destination = m.Image
	}
	g.script(b, append(append(args, "--destination", destination), g.MergeArguments...))
	b.WriteString("  artifacts:\n    reports:\n      dotenv: merge.env\n")
}

func (g GitLab) head(b *strings.Builder, name, stage string) {
	fmt.Fprintf(b, "\n%s:\n  stage: %s\n", quote(name), stage)
	if g.JobImage != "" {
		// The runner starts a shell in the image, not the program.
		fmt.Fprintf(b, "  image:\n    name: %s\n    entrypoint: [\"\"]\n", quote(g.JobImage))
	}
}

func (g GitLab) script(b *strings.Builder, args []string) {
	words := []string{"kaniko-multiarch"}
	for _, a := range args {
		words = append(words, shellWord(a))
	}
	fmt.Fprintf(b, "  script:\n    - %s\n", quote(strings.Join(words, " ")))
}

func jobName(r Row) string { return "build " + r.Key + " " + r.Slug }

var safeWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

func shellWord(s string) string {
	if safeWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// A text always has a JSON form.
	_ = enc.Encode(s)
	return strings.TrimSuffix(b.String(), "\n")
}

func quoteAll(list []string) string {
	out := slices.Clone(list)
	for i, s := range out {
		out[i] = quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
