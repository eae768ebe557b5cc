package e2e

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/test/imagediff"
)

// epochCases are Dockerfiles whose images must equal BuildKit's to the second
// when SOURCE_DATE_EPOCH is set and timestamps are rewritten: base layers keep
// their times, files of ours that are older keep theirs.
var epochCases = map[string]string{
	"steps": `FROM BASE/debian:12
RUN mkdir -p /d/e && echo 1 > /d/e/f && touch -d 2001-01-01 /d/old && ln -s f /d/e/l && rm /etc/debian_version
COPY a.txt dir /copied/
COPY --link --chmod=600 dir/two.txt /linked/
WORKDIR /made/here
ADD archive.tar.gz /x/
RUN chmod 700 /d && touch /usr/bin/new
ENV A=b
COPY <<EOF /doc
text
EOF
`,
	"scratch":     "FROM scratch\nCOPY dir /d\nWORKDIR /w\n",
	"only_base":   "FROM BASE/busybox:1\n",
	"only_config": "FROM BASE/busybox:1\nENV A=b\nLABEL c=d\n",
	"stages":      "FROM BASE/busybox:1 AS a\nRUN mkdir /o && touch /o/f\nFROM BASE/busybox:1\nCOPY --from=a /o /o\n",
}

func TestEpoch_equals_BuildKit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_BUILDKIT")
	for name, dockerfile := range epochCases {
		for _, epoch := range []string{"1100000000", "100"} {
			t.Run(name+"_"+epoch, func(t *testing.T) {
				t.Parallel()
				dir := equalContext(t, strings.ReplaceAll(dockerfile, "BASE", bases))
				ours, theirs := registry+"/epoch/"+name+":ours-"+epoch, registry+"/epoch/"+name+":theirs-"+epoch
				ok(t, "build", "--context", dir, "--state-dir", t.TempDir(), "--platform", "linux/amd64",
					"--build-arg", "SOURCE_DATE_EPOCH="+epoch, "--output", "type=registry,name="+ours+",rewrite-timestamp=true")
				tool(t, "../oracle/build.sh", "--context", dir, "--destination", theirs, "--platform", "linux/amd64",
					"--build-arg", "SOURCE_DATE_EPOCH="+epoch, "--output", "rewrite-timestamp=true")
				differences, err := imagediff.Descriptors(descriptor(t, ours), descriptor(t, theirs), imagediff.Options{Times: true})
				assert.NilError(t, err)
				assert.Check(t, is.Len(differences, 0), strings.Join(differences, "\n"))
			})
		}
	}
}
