package inplace_test

import (
	"context"
	"fmt"
	"os"

	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

// play is the test binary as a builder that can be killed.
func play(role string) int {
	options := inplace.Options{
		Root: os.Getenv("TEST_ROOT"), StateDir: os.Getenv("TEST_STATE"), Own: []string{os.Getenv("TEST_OWN")},
		Explain: emulation.New(os.Getenv), Grace: inplace.DefaultGrace,
	}
	runner, err := inplace.New(context.Background(), options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for range 1000 {
		p := shell(os.Getenv("TEST_TREE"), os.Getenv("TEST_SCRIPT"))
		p.Stdout, p.Stderr = os.Stdout, os.Stderr
		if err := runner.Run(context.Background(), p); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if role == "once" {
			break
		}
	}
	return 0
}
