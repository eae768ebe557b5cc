package progress

import (
	"bytes"
	"strings"
)

// mask stands for a secret.
const mask = "***"

// minSecret is the length from which a value is a secret, in bytes. One or two
// letters are in every line: masks in "linu***" and the like hide nothing, but
// tell what they are, and no log could be read. Drone, Buildkite and GitLab have
// such limits, too: 2, 6 and 8.
const minSecret = 3

// minSecretLine is the length from which a line of a secret is a secret by
// itself. Shorter ones, the brackets of a JSON key, would mask half a log.
const minSecretLine = 8

// secrets are byte strings that nobody may see.
type secrets [][]byte

func newSecrets(values []string) secrets {
	var s secrets
	for _, v := range values {
		// A file ends in a newline that programs strip before they show it.
		v = strings.TrimRight(v, "\r\n")
		if len(strings.TrimSpace(v)) < minSecret {
			continue
		}
		s = s.add(v)
		unix := strings.ReplaceAll(v, "\r\n", "\n")
		s = s.add(unix)
		lines := strings.Split(unix, "\n")
		if len(lines) == 1 {
			continue
		}
		for _, line := range lines {
			if len(strings.TrimSpace(line)) >= minSecretLine {
				s = s.add(strings.TrimSpace(line))
			}
		}
	}
	return s
}

// Redact masks values in a text as a Display with the same Options.Redact would.
func Redact(text string, values []string) string { return newSecrets(values).replace(text) }

func (s secrets) add(value string) secrets {
	if strings.TrimSpace(value) == "" {
		return s
	}
	for _, have := range s {
		if string(have) == value {
			return s
		}
	}
	return append(s, []byte(value))
}

// cleaned returns the secrets as they look in cleaned output.
func (s secrets) cleaned(f form) secrets {
	var out secrets
	for _, v := range s {
		c := cleaner{form: f}
		out = out.add(string(append(c.write(v), c.flush()...)))
	}
	return out
}

// replace masks the secrets in a text that is complete.
func (s secrets) replace(text string) string {
	if len(s) == 0 || text == "" {
		return text
	}
	r := newRedactor(s)
	return string(append(r.write([]byte(text)), r.flush()...))
}

// redactor masks secrets in a stream. It holds back only what may be the
// beginning of one, so it holds less than the longest secret, and no part of a
// secret that overlaps another gets through.
//
// Control sequences within a secret do not hide it (grep colors what it found);
// they themselves pass.
type redactor struct {
	secrets secrets
	first   [256]bool
	held    []byte
	// covered is how many of the held bytes a mask stands for already.
	covered int
}

func newRedactor(s secrets) *redactor {
	r := &redactor{secrets: s}
	for _, v := range s {
		r.first[v[0]] = true
	}
	return r
}

func (r *redactor) write(p []byte) []byte {
	if len(r.secrets) == 0 {
		return p
	}
	return r.scan(p, false)
}

func (r *redactor) flush() []byte { return r.scan(nil, true) }

func (r *redactor) scan(p []byte, last bool) []byte {
	buf := append(r.held, p...)
	out := make([]byte, 0, len(buf))
	covered, i := r.covered, 0
	for i < len(buf) {
		if r.first[buf[i]] {
			n, open := r.match(buf[i:])
			if open && !last {
				break
			}
			if n > 0 {
				if i >= covered {
					out = append(out, mask...)
				}
				covered = max(covered, i+n)
			}
		}
		n := 1
		if i < covered && buf[i] == '\x1b' {
			n = max(1, csi(buf[i:]))
		}
		if i >= covered || n > 1 {
			out = append(out, buf[i:i+n]...)
		}
		i += n
	}
	r.held = append([]byte(nil), buf[i:]...)
	r.covered = max(0, covered-i)
	return out
}

// match returns the length of the longest secret that b starts with, and
// whether more bytes could make it a longer one.
func (r *redactor) match(b []byte) (longest int, open bool) {
	for _, s := range r.secrets {
		n, part := matchOne(b, s)
		longest, open = max(longest, n), open || part
	}
	return longest, open
}

// matchOne returns the length of the secret s at the start of b, 0 for none;
// part means that b ends within what may be s.
func matchOne(b, s []byte) (n int, part bool) {
	i := 0
	for j := 0; j < len(s); {
		if i == len(b) {
			return 0, true
		}
		if b[i] == s[j] {
			i, j = i+1, j+1
			continue
		}
		skip := csi(b[i:])
		if j == 0 || skip == 0 {
			return 0, false
		}
		if skip < 0 {
			return 0, true
		}
		i += skip
	}
	return i, false
}

// maxCSI is longer than any control sequence in use.
const maxCSI = 64

// csi returns the length of the control sequence that b starts with: 0 if there
// is none, less than 0 if more bytes are needed to tell. See ECMA-48, 5.4.
func csi(b []byte) int {
	if !bytes.HasPrefix(b, []byte("\x1b[")) {
		if len(b) == 1 && b[0] == '\x1b' {
			return -1
		}
		return 0
	}
	for i := 2; i < len(b); i++ {
		switch c := b[i]; {
		case i == maxCSI, c < 0x20, c > 0x7e:
			return 0
		case c >= 0x40:
			return i + 1
		}
	}
	if len(b) >= maxCSI {
		return 0
	}
	return -1
}
