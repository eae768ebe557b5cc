package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/org/kaniko-multiarch/test/imagediff"
)

// caseLimit is the longest that one build may take.
const caseLimit = 5 * time.Minute

// builder builds a case and pushes the image to a name. output is what it printed.
type builder interface {
	build(ctx context.Context, j job, image string) (output string, err error)
}

// job is a case with all that a builder needs, paths absolute.
type job struct {
	*Case
	context, dockerfile string
	images              map[string]string // named contexts that are images
	dirs                map[string]string // and directories
	secrets             map[string]string // files
	args                map[string]string
}

// suite runs the cases of a table.
type suite struct {
	*table
	registry string
	oracle   *buildKit
	ours     map[string]builder
	// order of ours
	isolations []string
	site       *httptest.Server
	secrets    string
	since      time.Time
	layers     imagediff.Layers
	mu         sync.Mutex
	used       map[int]bool // exemptions
}

func newSuite(t *table, o options, dir string) (*suite, error) {
	s := &suite{table: t, ours: map[string]builder{}, isolations: o.isolations, used: map[int]bool{}, secrets: filepath.Join(dir, "secrets")}
	var err error
	if s.registry = os.Getenv("KMA_TEST_REGISTRY"); s.registry == "" {
		err = errors.Join(err, needs("KMA_TEST_REGISTRY"))
	}
	oracle, oracleErr := newOracle()
	err = errors.Join(err, oracleErr)
	s.oracle = oracle
	if err != nil {
		return nil, err
	}
	binary, err := buildProgram(dir)
	if err != nil {
		return nil, err
	}
	for _, isolation := range o.isolations {
		if s.ours[isolation], err = newOurs(isolation, binary, dir); err != nil {
			return nil, err
		}
	}
	s.site = httptest.NewServer(http.FileServer(http.Dir(t.dir)))
	s.since = time.Now()
	return s, nil
}

func (s *suite) close() { s.site.Close() }

// run builds all cases, parallel at a time, and calls done for each result. The
// results are in the table's order.
func (s *suite) run(ctx context.Context, parallel int, done func(result)) []result {
	all := make([][]result, len(s.Cases))
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(parallel, 1))
	for i := range s.Cases {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = s.one(ctx, i)
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, r := range all[i] {
				done(r)
			}
		})
	}
	wg.Wait()
	unused := s.unused()
	for _, r := range unused {
		done(r)
	}
	return slices.Concat(append(all, unused)...)
}

// one builds a case with BuildKit and with each of our isolations.
func (s *suite) one(ctx context.Context, i int) []result {
	c := &s.Cases[i]
	if c.Skip != "" {
		return []result{{Name: c.Name, Result: skipped, What: c.Skip}}
	}
	ctx, cancel := context.WithTimeout(ctx, caseLimit)
	defer cancel()
	repository := fmt.Sprintf("%s/conformance/%d-%s", s.registry, i, unfit.ReplaceAllString(strings.ToLower(c.Name), "-"))
	j, err := s.job(ctx, c, repository)
	if err != nil {
		return []result{{Name: c.Name, Result: failed, What: err.Error()}}
	}
	theirs := repository + ":buildkit"
	output, err := s.oracle.build(ctx, j, theirs)
	if (err != nil) != c.Fails {
		return []result{{Name: c.Name, Result: failed, What: "BuildKit: " + told(err), Output: output}}
	}
	if c.Fails && !strings.Contains(output, c.Error) {
		return []result{{Name: c.Name, Result: failed, What: fmt.Sprintf("BuildKit does not say %q", c.Error), Output: output}}
	}
	var results []result
	for _, isolation := range s.isolations {
		start := time.Now()
		r := s.compare(ctx, j, isolation, repository+":"+isolation, theirs)
		r.Name, r.Isolation, r.Seconds = c.Name, isolation, time.Since(start).Seconds()
		results = append(results, r)
	}
	return results
}

// cacheNamespace is a build argument of the front end's: cache mounts of a case
// are seen by no other.
const cacheNamespace = "BUILDKIT_CACHE_MOUNT_NS"

var unfit = regexp.MustCompile("[^a-z0-9]+")

func told(err error) string {
	if err == nil {
		return "built what should fail"
	}
	return err.Error()
}

// job completes a case: secrets become files, base Dockerfiles images.
func (s *suite) job(ctx context.Context, c *Case, repository string) (job, error) {
	j := job{
		Case: c, context: filepath.Join(s.dir, c.Context), dockerfile: filepath.Join(s.dir, c.Dockerfile),
		images: map[string]string{}, dirs: map[string]string{}, secrets: map[string]string{}, args: map[string]string{
			cacheNamespace: fmt.Sprint(unfit.ReplaceAllString(strings.ToLower(c.Name), "-"), s.since.UnixNano()),
		},
	}
	for name, dir := range c.Contexts {
		j.dirs[name] = filepath.Join(s.dir, dir)
	}
	for name, value := range c.Args {
		j.args[name] = value
	}
	if c.Serve {
		j.args["HTTP"] = s.site.URL + "/" + c.Context
	}
	for name, image := range s.Bases {
		j.images[name] = image
	}
	for id, content := range c.Secrets {
		dir := filepath.Join(s.secrets, filepath.Base(repository))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return j, err
		}
		j.secrets[id] = filepath.Join(dir, id)
		if err := os.WriteFile(j.secrets[id], []byte(content), 0o600); err != nil {
			return j, err
		}
	}
	for name, file := range c.BaseFiles {
		base := j
		file, target, _ := strings.Cut(file, "#")
		base.Case = &Case{Name: c.Name, Platform: c.Platform, Target: target}
		base.args = maps.Clone(j.args)
		base.args["SOURCE_DATE_EPOCH"] = fmt.Sprint(contextTime.Unix())
		base.dockerfile = filepath.Join(s.dir, file)
		image := repository + "-base:" + unfit.ReplaceAllString(strings.ToLower(name), "-")
		if output, err := s.oracle.forBases().build(ctx, base, image); err != nil {
			return j, fmt.Errorf("BuildKit, base %s: %w\n%s", name, err, output)
		}
		j.images[name] = image
	}
	for name, file := range c.BaseTars {
		image := repository + "-base:" + unfit.ReplaceAllString(strings.ToLower(name), "-")
		if err := pushTar(filepath.Join(s.dir, file), image); err != nil {
			return j, fmt.Errorf("base %s: %w", name, err)
		}
		j.images[name] = image
	}
	return j, nil
}

// compare builds j and holds the image against BuildKit's.
func (s *suite) compare(ctx context.Context, j job, isolation, ours, theirs string) result {
	fails, message := j.Fails, []string{j.Error, j.Says}
	if isolation == isolationInPlace && j.InPlace != "" {
		fails, message = true, []string{j.InPlace}
	}
	output, err := s.ours[isolation].build(ctx, j, ours)
	if (err != nil) != fails {
		if why := s.exempt(j.Case, isolation, told(err)); why != "" {
			return result{Result: passed, Exempt: []string{told(err) + " (" + why + ")"}}
		}
		return result{Result: failed, What: told(err), Output: output}
	}
	if fails {
		for _, m := range message {
			if !strings.Contains(output, m) {
				return result{Result: failed, What: fmt.Sprintf("the message has no %q", m), Output: output}
			}
		}
		return result{Result: passed}
	}
	lines, err := s.differences(ours, theirs)
	if err != nil {
		return result{Result: failed, What: err.Error(), Output: output}
	}
	r := result{Result: passed}
	for _, line := range lines {
		if why := s.exempt(j.Case, isolation, line); why != "" {
			r.Exempt = append(r.Exempt, line+" ("+why+")")
			continue
		}
		r.Result, r.Differences = differs, append(r.Differences, line)
	}
	return r
}

func (s *suite) differences(ours, theirs string) ([]string, error) {
	var got [2]*remote.Descriptor
	for i, image := range []string{ours, theirs} {
		ref, err := name.ParseReference(image)
		if err != nil {
			return nil, err
		}
		if got[i], err = remote.Get(ref); err != nil {
			return nil, err
		}
	}
	return imagediff.Descriptors(got[0], got[1], imagediff.Options{Since: s.since, Layers: &s.layers})
}

// exempt returns why a difference is allowed, or nothing.
func (s *suite) exempt(c *Case, isolation, line string) string {
	for i, e := range s.Exemptions {
		if e.covers(c.Name, isolation, line) {
			s.mu.Lock()
			s.used[i] = true
			s.mu.Unlock()
			return e.Why
		}
	}
	return ""
}

// unused are exemptions that no difference of the cases that ran needs.
func (s *suite) unused() []result {
	var out []result
	for i, e := range s.Exemptions {
		ran := func(c Case) bool { return whole(e.Case).MatchString(c.Name) }
		place := e.Isolation == "" || slices.Contains(s.isolations, e.Isolation)
		if place && !s.used[i] && slices.ContainsFunc(s.Cases, ran) {
			out = append(out, result{Name: e.Case, Result: failed, What: "the exemption of " + e.Line + " is not needed: remove it"})
		}
	}
	return out
}
