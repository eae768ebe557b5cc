package cli

import (
	"errors"
	"strings"
)

// records are the values of a list in one variable, one a line. As in Docker's
// own actions a value in quotes may have several lines, and a doubled quote in it
// is one. Quotes elsewhere are part of the value.
func records(text string) ([]string, error) {
	var out []string
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for text != "" {
		trimmed := strings.TrimLeft(text, " \t\n")
		if quoted, ok := strings.CutPrefix(trimmed, `"`); ok {
			value, rest, err := unquote(quoted)
			if err != nil {
				return nil, err
			}
			out, text = append(out, value), rest
			continue
		}
		line, rest, _ := strings.Cut(trimmed, "\n")
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
		text = rest
	}
	return out, nil
}

// unquote reads a value up to its closing quote, after which the line must end.
func unquote(text string) (value, rest string, err error) {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(text, `"`)
		if !ok {
			return "", "", errors.New("a quote at the beginning of a line is not closed")
		}
		b.WriteString(before)
		if doubled, ok := strings.CutPrefix(after, `"`); ok {
			b.WriteByte('"')
			text = doubled
			continue
		}
		tail, rest, _ := strings.Cut(after, "\n")
		if strings.TrimSpace(tail) != "" {
			return "", "", errors.New("text follows a closing quote: put the whole value in quotes, and double those in it")
		}
		return b.String(), rest, nil
	}
}
