package progress

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		secrets  []string
		in, want string
	}{
		{"none", nil, "text", "text"},
		{"plain", []string{"pass"}, "a pass b passpass", "a *** b ******"},
		{"longest_wins", []string{"pass", "password"}, "pass password passwor", "*** *** ***wor"},
		{"overlap", []string{"abc", "cde"}, "xabcdey", "x***y"},
		{"nested", []string{"abcdefg", "cde"}, "abcdefg cde abcdef", "*** *** ab***f"},
		{"self_overlap", []string{"aaa"}, "aaaaaaa b", "*** b"},
		{"false_start", []string{"aab"}, "aaab", "a***"},
		{"trailing_newline", []string{"pass\r\n"}, "pass\n", "***\n"},
		{"blank_is_no_secret", []string{"", " ", "\n"}, "a \n b", "a \n b"},
		{"letters_are_no_secret", []string{"x", "nu\n", " u "}, "linux u", "linux u"},
		{"three_letters", []string{"nux"}, "linux", "li***"},
		{"several_lines", []string{"first line\nsecond line\n"}, "<first line\nsecond line>", "<***>"},
		{"several_lines_crlf", []string{"first line\r\nsecond line"}, "first line\nsecond line|first line\r\nsecond line", "***|***"},
		{"a_line_of_several", []string{"{\n  \"key\": \"0123456789\"\n}"}, "{ x \"key\": \"0123456789\" }", "{ x *** }"},
		{"colored", []string{"pass"}, "pa\x1b[31ms\x1b[0ms", "***\x1b[31m\x1b[0m"},
		{"color_is_no_match", []string{"pass"}, "pa\x1b[31mx", "pa\x1b[31mx"},
		{"binary", []string{"\xff\x00\xfe"}, "a\xff\x00\xfeb", "a***b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSecrets(tc.secrets)
			assert.Equal(t, s.replace(tc.in), tc.want)
			for size := 1; size <= len(tc.in); size++ {
				r := newRedactor(s)
				var got []byte
				for in := []byte(tc.in); len(in) > 0; {
					n := min(size, len(in))
					got = append(got, r.write(in[:n])...)
					in = in[n:]
				}
				assert.Equal(t, string(append(got, r.flush()...)), tc.want, "pieces of %d", size)
			}
		})
	}
}

// Whatever the pieces, the result is that of the whole text and has no secret.
func TestRedactRandom(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab\n"[rnd.IntN(3)]
		}
		return string(b)
	}
	for range 2000 {
		s := newSecrets([]string{"a" + word(3) + "b", "b" + word(5) + "a"})
		text := word(60)
		want := s.replace(text)
		r := newRedactor(s)
		var got bytes.Buffer
		for in := []byte(text); len(in) > 0; {
			n := min(1+rnd.IntN(9), len(in))
			got.Write(r.write(in[:n]))
			in = in[n:]
		}
		got.Write(r.flush())
		assert.Equal(t, got.String(), want)
		for _, v := range s {
			assert.Assert(t, !strings.Contains(want, string(v)), "%q in %q", v, want)
		}
	}
}
