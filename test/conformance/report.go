package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// What became of a case.
const (
	passed  = "ok"
	differs = "DIFF"
	failed  = "FAIL"
	skipped = "skip"
)

// result is of one case in one isolation.
type result struct {
	Name        string   `json:"name"`
	Isolation   string   `json:"isolation,omitempty"`
	Result      string   `json:"result"`
	What        string   `json:"what,omitempty"`
	Differences []string `json:"differences,omitempty"`
	// Exempt are differences that are allowed, with the reason.
	Exempt  []string `json:"exempt,omitempty"`
	Output  string   `json:"output,omitempty"`
	Seconds float64  `json:"seconds"`
}

func (r result) bad() bool { return r.Result == failed || r.Result == differs }

// shown is how many differences and lines of output are printed.
const shown = 10

func (r result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-4s %s", r.Result, r.Name)
	if r.Isolation != "" {
		fmt.Fprintf(&b, " (%s, %.1fs)", r.Isolation, r.Seconds)
	}
	if r.What != "" {
		fmt.Fprintf(&b, ": %s", r.What)
	}
	for i, line := range r.Differences {
		if i == shown {
			fmt.Fprintf(&b, "\n     and %d more", len(r.Differences)-shown)
			break
		}
		fmt.Fprintf(&b, "\n     %s", line)
	}
	if r.bad() && r.Output != "" {
		lines := strings.Split(strings.TrimSpace(r.Output), "\n")
		for _, line := range lines[max(0, len(lines)-shown):] {
			fmt.Fprintf(&b, "\n     | %s", line)
		}
	}
	return b.String()
}

func printResult(r result) { fmt.Println(r) }

func printSummary(all []result) {
	count := map[string]int{}
	for _, r := range all {
		count[r.Result]++
	}
	fmt.Printf("%d ok, %d DIFF, %d FAIL, %d skip\n", count[passed], count[differs], count[failed], count[skipped])
}

func writeReport(file string, all []result) error {
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
