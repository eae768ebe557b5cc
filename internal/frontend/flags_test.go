package frontend

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// instructionFlags are all flags of the built-in syntax with a value that is not
// the default, and an instruction to put each into. "!name value" is refused, by
// that name; "~value" means nothing there, and BuildKit takes it nevertheless.
var instructionFlags = map[string]struct {
	line  string
	flags []string
}{
	"FROM":        {"FROM %s debian:12", []string{"--platform=linux/arm64"}},
	"HEALTHCHECK": {"HEALTHCHECK %s CMD x", []string{"--interval=7s", "--timeout=7s", "--start-period=7s", "--start-interval=7s", "--retries=7"}},
	"ADD":         {"ADD %s a b", []string{"--chown=1:2", "--chmod=0600", "--link", "--exclude=x", "--unpack=false"}},
	"ADD url": {"ADD %s https://example.com/a b", []string{
		"--checksum=sha256:87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7", "--unpack=true",
	}},
	"ADD file": {"ADD %s a b", []string{
		"!checksum --checksum=sha256:87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7",
	}},
	"COPY": {"COPY %s a b", []string{"--from=base", "--chown=1:2", "--chmod=0600", "--link", "--exclude=x", "--parents"}},
	"RUN":  {"RUN %s x", []string{"--network=none", "--network=host", "!--security --security=insecure", "!device --device=vendor/gpu"}},
	"RUN mount": {"RUN --mount=target=/m%s x", []string{
		",source=x", ",src=x", ",from=base", ",rw", ",readwrite", ",readonly=false",
		"!size ,size=1", "~,id=x", "!sharing ,sharing=locked", "!mode ,mode=1", "!uid ,uid=1", "!gid ,gid=1", "!required ,required", "~,env=X", "!nope ,nope=1",
	}},
	"RUN tmpfs": {"RUN --mount=type=tmpfs,target=/m%s x", []string{
		",size=1m", "~,from=base", "~,id=x", "!sharing ,sharing=locked", "!mode ,mode=1", "!uid ,uid=1", "~,env=X", "!nope ,nope=1",
	}},
	"RUN cache": {"RUN --mount=type=cache,target=/m%s x", []string{
		",id=x", ",sharing=locked", ",sharing=private", ",from=base", ",from=base,source=x", ",mode=0700", ",uid=1", ",gid=1", ",ro", ",readonly",
		"!size ,size=1", "!required ,required", "~,env=X", "!nope ,nope=1", "!sharing ,sharing=all",
	}},
	"RUN secret": {"RUN --mount=type=secret,id=s%s x", []string{
		",target=/x", ",dst=/x", ",mode=0444", ",uid=1", ",gid=1", ",required", ",required=true", ",env=X",
		"!size ,size=1", "!from ,from=base", "!sharing ,sharing=locked", "!nope ,nope=1",
	}},
	"RUN ssh": {"RUN --mount=type=ssh%s x", []string{"!size ,size=1", "~,env=X", "!nope ,nope=1"}},
}

// A flag changes what is built, or is refused by name: none is ignored.
func TestFlags(t *testing.T) {
	t.Parallel()
	load := func(t *testing.T, line string) (string, error) {
		res, err := Load(t.Context(), options("FROM debian:12 AS base\nFROM base\n"+line+"\n", "linux/amd64"))
		if err != nil {
			return "", err
		}
		text := config(t, res)
		for _, v := range res.Graph.Vertices {
			text += string(v.Digest)
		}
		return text, nil
	}
	for name, tc := range instructionFlags {
		for _, flag := range tc.flags {
			t.Run(name+"/"+flag, func(t *testing.T) {
				t.Parallel()
				flag, meaningless := strings.CutPrefix(flag, "~")
				refused := ""
				if rest, ok := strings.CutPrefix(flag, "!"); ok {
					refused, flag, _ = strings.Cut(rest, " ")
				}
				with, err := load(t, strings.Replace(tc.line, "%s", flag, 1))
				if refused != "" {
					assert.ErrorContains(t, err, refused)
					return
				}
				assert.NilError(t, err)
				without, err := load(t, strings.Replace(tc.line, "%s", "", 1))
				assert.NilError(t, err)
				assert.Check(t, (with == without) == meaningless, "is it ignored? %v", with == without)
			})
		}
	}
}

// config is the image's config without its history, which has every line.
func config(t *testing.T, res *Result) string {
	t.Helper()
	_, after, ok := strings.Cut(string(res.Graph.Images[0].Config), `"config":`)
	assert.Assert(t, ok)
	before, _, _ := strings.Cut(after, `"history"`)
	return before
}

// Each instruction refuses a flag that it does not have. BuildKit itself passes
// over those of ARG and STOPSIGNAL.
func TestFlags_unknown(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"ADD --nope a b", "CMD --nope x", "COPY --nope a b", "ENTRYPOINT --nope x", "ENV --nope A=b",
		"EXPOSE --nope 80", "FROM --nope scratch", "HEALTHCHECK --nope CMD x", "LABEL --nope a=b", "MAINTAINER --nope x",
		"ONBUILD --nope RUN x", "RUN --nope x", "SHELL --nope [\"x\"]", "USER --nope x",
		"VOLUME --nope /x", "WORKDIR --nope /x",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			_, err := Load(t.Context(), options("FROM debian:12\n"+line+"\n", "linux/amd64"))
			assert.Assert(t, is.ErrorContains(err, "--nope"))
		})
	}
}
