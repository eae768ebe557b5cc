package cli

import (
	"slices"
	"strings"

	"github.com/org/kaniko-multiarch/internal/build"
)

// buildxFlags are those of buildx and of build-push-action that stand for
// something else here, or for nothing.
type buildxFlags struct {
	SecretEnv    []string `sep:"none" help:"NAME=VARIABLE, short for --secret id=NAME,env=VARIABLE."`
	SecretFile   []string `sep:"none" help:"NAME=FILE, short for --secret id=NAME,src=FILE."`
	Pull         *bool    `help:"Changes nothing: base images are always asked for."`
	Builder      string   `help:"Changes nothing: the builder is this program."`
	Provenance   string   `help:"false: provenance is not made."`
	SBOM         string   `name:"sbom" help:"false: no SBOM is made."`
	Attest       []string `sep:"none" help:"type=...,disabled=true: attestations are not made."`
	CgroupParent string   `help:"Not supported: steps run in the cgroup of the job."`
}

func (f buildxFlags) options(w *World, o *build.Options) error {
	if err := f.refuse(); err != nil {
		return err
	}
	for _, ignored := range []struct{ flag, value, reason string }{
		{"builder", f.Builder, "the builder is this program"},
	} {
		if ignored.value != "" {
			say(w, "notice", "--"+ignored.flag+" changes nothing: "+ignored.reason)
		}
	}
	for _, list := range []struct {
		flag  string
		lines []string
		of    func(id, value string) build.Secret
	}{
		{"secret-env", f.SecretEnv, func(id, value string) build.Secret { return build.Secret{ID: id, Env: value} }},
		{"secret-file", f.SecretFile, func(id, value string) build.Secret { return build.Secret{ID: id, File: value} }},
	} {
		for _, line := range splitLines(list.lines) {
			id, value, ok := strings.Cut(line, "=")
			if !ok || id == "" || value == "" {
				return usagef("--%s: want NAME=VALUE", list.flag)
			}
			o.Secrets = append(o.Secrets, list.of(id, value))
		}
	}
	return nil
}

// refuse is about what cannot be had here, with what can be done instead.
func (f buildxFlags) refuse() error {
	off := []string{"", "false", "False", "FALSE"}
	switch {
	case !slices.Contains(off, f.Provenance):
		return usagef("--provenance=%s: this version makes no provenance: leave it out, and attest the digest that comes out, on GitHub with actions/attest-build-provenance", f.Provenance)
	case !slices.Contains(off, f.SBOM):
		return usagef("--sbom=%s: this version makes no SBOM: leave it out, and give the published image to a scanner, such as syft", f.SBOM)
	case f.CgroupParent != "":
		return usagef("--cgroup-parent: steps run in the cgroup of the job: limit the job")
	}
	for _, line := range splitLines(f.Attest) {
		if !strings.Contains(","+line+",", ",disabled=true,") {
			return usagef("--attest %s: this version makes no attestations: leave it out, and attest the digest that comes out", line)
		}
	}
	return nil
}
