// Command kaniko-multiarch builds multi-architecture container images in CI,
// without a Docker daemon.
package main

import (
	"os"

	"github.com/org/kaniko-multiarch/internal/cli"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

func main() {
	namespaces.Child()
	inplace.Child()
	os.Exit(cli.Main(os.Args, cli.World{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv}))
}
