// Command imagediff prints how two images differ, one difference a line, the
// first image's value before the bar. It exits 1 if there is any.
//
// usage: imagediff [-times] REFERENCE REFERENCE
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/org/kaniko-multiarch/test/imagediff"
)

func main() {
	times := flag.Bool("times", false, "compare times too")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: imagediff [-times] REFERENCE REFERENCE")
		os.Exit(2)
	}
	lines, err := compare(flag.Arg(0), flag.Arg(1), imagediff.Options{Times: *times})
	if err != nil {
		fmt.Fprintln(os.Stderr, "imagediff:", err)
		os.Exit(2)
	}
	for _, line := range lines {
		fmt.Println(line)
	}
	if len(lines) > 0 {
		os.Exit(1)
	}
}

func compare(a, b string, o imagediff.Options) ([]string, error) {
	first, err := get(a)
	if err != nil {
		return nil, err
	}
	second, err := get(b)
	if err != nil {
		return nil, err
	}
	return imagediff.Descriptors(first, second, o)
}

func get(reference string) (*remote.Descriptor, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	return remote.Get(ref)
}
