package ci

import (
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// text is what a console wrote, with a name for its token.
func text(b *strings.Builder) string {
	m := regexp.MustCompile(`::stop-commands::(\w+)`).FindStringSubmatch(b.String())
	if m == nil {
		return b.String()
	}
	return strings.ReplaceAll(b.String(), m[1], "TOKEN")
}

func TestConsole(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	c := NewConsole(&b)
	c.Mask("hunter22\nab\nsecond 100%\n")
	_, err := c.Write([]byte("::set-output name=a::b\nno end"))
	assert.NilError(t, err)
	c.Annotate("error", "a,b:c", 3, "Rule: x", "two\nlines")
	c.Say("warning", "100%")
	_, err = c.Write([]byte("more"))
	assert.NilError(t, err)
	c.Close()
	c.Close()
	assert.Check(t, is.Equal(text(&b), `::add-mask::hunter22
::add-mask::second 100%25
::stop-commands::TOKEN
::set-output name=a::b
no end
::TOKEN::
::error file=a%2Cb%3Ac,line=3,title=Rule%3A x::two%0Alines
::stop-commands::TOKEN
::TOKEN::
::warning::100%25
::stop-commands::TOKEN
more
::TOKEN::
`))
}

// Without text there is nothing to fence: a child process may have one.
func TestConsole_silent(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	c := NewConsole(&b)
	_, err := c.Write(nil)
	assert.NilError(t, err)
	c.Close()
	assert.Check(t, is.Equal(b.String(), ""))
}

func TestConsole_tokens_differ(t *testing.T) {
	t.Parallel()
	var one, two strings.Builder
	for _, b := range []*strings.Builder{&one, &two} {
		c := NewConsole(b)
		_, err := c.Write([]byte("x\n"))
		assert.NilError(t, err)
		c.Close()
	}
	assert.Check(t, one.String() != two.String())
}
