package ci

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Output is one named value that later jobs read.
type Output struct{ Name, Value string }

// WriteOutputs hands values to GitHub, in the file that GITHUB_OUTPUT names. It
// does nothing where there is none.
//
// The delimiter of each value is random: a value that others wrote, such as a
// label, cannot end itself and set another output (CVE-2022-35954).
func WriteOutputs(getenv func(string) string, outputs ...Output) error {
	name := getenv("GITHUB_OUTPUT")
	if name == "" {
		return nil
	}
	var b strings.Builder
	for _, o := range outputs {
		delimiter := "kma_" + rand.Text()
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o.Name, delimiter, o.Value, delimiter)
	}
	if err := appendTo(name, b.String()); err != nil {
		return fmt.Errorf("writing the outputs of the step (GITHUB_OUTPUT): %w", err)
	}
	return nil
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Dotenv is the text of a dotenv report for GitLab. GitLab takes neither a
// value of several lines nor quotes.
func Dotenv(outputs ...Output) (string, error) {
	var b strings.Builder
	for _, o := range outputs {
		if !variable.MatchString(o.Name) {
			return "", fmt.Errorf("dotenv: %q is no name of a variable", o.Name)
		}
		if strings.ContainsAny(o.Value, "\r\n") {
			return "", fmt.Errorf("dotenv: %s has several lines, which GitLab does not take", o.Name)
		}
		fmt.Fprintf(&b, "%s=%s\n", o.Name, o.Value)
	}
	return b.String(), nil
}

// maxSummary is what GitHub takes of a step, in bytes (actions/runner,
// AttachmentSizeLimit). It refuses a larger file as a whole.
const maxSummary = 1 << 20

// WriteSummary appends Markdown to the page of the job, in the file that
// GITHUB_STEP_SUMMARY names. It does nothing where there is none. What does not
// fit is cut at the end of a line.
func WriteSummary(getenv func(string) string, markdown string) error {
	name := getenv("GITHUB_STEP_SUMMARY")
	if name == "" {
		return nil
	}
	used := int64(0)
	if info, err := os.Stat(name); err == nil {
		used = info.Size()
	}
	text := fit(markdown, maxSummary-used)
	if text == "" {
		return nil
	}
	if err := appendTo(name, text); err != nil {
		return fmt.Errorf("writing the summary of the job (GITHUB_STEP_SUMMARY): %w", err)
	}
	return nil
}

// cut stands for what is missing of a summary.
const cut = "\n*The rest does not fit into the summary of a job; the log has all of it.*\n"

// fit shortens text to a number of bytes.
func fit(text string, room int64) string {
	if int64(len(text)) <= room {
		return text
	}
	room -= int64(len(cut))
	if room <= 0 {
		return ""
	}
	end := strings.LastIndexByte(text[:room], '\n') + 1
	return text[:end] + cut
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
