// Command conformance builds Dockerfiles with this program and with BuildKit, and
// tells how the images differ: every file with its metadata, the whole config, the
// history, the number of layers. What must fail must fail with both.
//
// usage: conformance [-suite DIR [-table FILE]] [-run REGEXP] [-sample N]
//
//	[-isolation namespaces,inplace] [-j N] [-report FILE]
//
// Without -suite it is the corpus beside this file. Run it under
// test/with-services.sh, which provides the servers:
//
//	test/with-services.sh --bases --oracle --docker go run ./test/conformance
//
// It exits 1 if a case is not as it should be, 2 if it could not start.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.suite, "suite", "", "directory of Dockerfiles and contexts (default: the corpus)")
	flag.StringVar(&o.table, "table", "", "JSON file of bases and cases (default: every Dockerfile* of the suite)")
	flag.StringVar(&o.only, "run", "", "run only the cases whose name matches")
	flag.IntVar(&o.sample, "sample", 1, "run only every Nth case")
	isolations := flag.String("isolation", isolationNamespaces, "how we build, a list: namespaces, inplace")
	flag.IntVar(&o.parallel, "j", 3, "cases at a time")
	flag.StringVar(&o.report, "report", "", "file for all results as JSON")
	flag.Parse()
	o.isolations = strings.Split(*isolations, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bad, err := run(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	case bad:
		os.Exit(1)
	}
}

type options struct {
	suite, table, only, report string
	sample, parallel           int
	isolations                 []string
}

// run tells whether a case is not as it should be.
func run(ctx context.Context, o options) (bad bool, err error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return false, fmt.Errorf("-run: %w", err)
	}
	dir, err := os.MkdirTemp("", "kma-conformance-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	t, err := load(o, dir)
	if err != nil {
		return false, err
	}
	t.Cases = sample(t.Cases, only, o.sample)
	s, err := newSuite(t, o, dir)
	if err != nil {
		return false, err
	}
	defer s.close()
	results := s.run(ctx, o.parallel, printResult)
	if err := context.Cause(ctx); err != nil {
		return false, err
	}
	printSummary(results)
	if o.report != "" {
		if err := writeReport(o.report, results); err != nil {
			return false, err
		}
	}
	return slices.ContainsFunc(results, result.bad), nil
}

// load reads the table of a suite, or makes that of the corpus.
func load(o options, dir string) (*table, error) {
	switch {
	case o.suite != "":
		return readTable(o.suite, o.table)
	case o.table != "":
		return nil, fmt.Errorf("-table %s: it describes a suite: name its directory with -suite", o.table)
	}
	return unpackCorpus(dir)
}

// sample picks every nth of the cases whose name matches; with n above 1, of those
// that are quick.
func sample(all []Case, only *regexp.Regexp, n int) []Case {
	var picked []Case
	for _, c := range all {
		if only.MatchString(c.Name) && !(n > 1 && c.Slow) {
			picked = append(picked, c)
		}
	}
	n = max(n, 1)
	var out []Case
	for i := 0; i < len(picked); i += n {
		out = append(out, picked[i])
	}
	return out
}
