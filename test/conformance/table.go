package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// table is a suite: what to build and with which base images. Paths are below dir.
type table struct {
	dir string
	// Bases are images to use in the place of others, wherever a Dockerfile names
	// them: "docker.io/library/busybox" to "127.0.0.1:5000/base/busybox:1". A $NAME
	// in the latter is an environment variable.
	Bases      map[string]string `json:"bases"`
	Cases      []Case            `json:"cases"`
	Exemptions []Exemption       `json:"exemptions"`
}

// Case is one build. All fields but the name have defaults.
type Case struct {
	Name       string `json:"name"`
	Dockerfile string `json:"dockerfile"` // default: Dockerfile
	Context    string `json:"context"`    // default: the suite's directory
	Target     string `json:"target"`
	Platform   string `json:"platform"` // default: linux/amd64
	// Args are build arguments, Env the builders' environment.
	Args map[string]string `json:"args"`
	Env  map[string]string `json:"env"`
	// Secrets are contents by ID.
	Secrets map[string]string `json:"secrets"`
	// Contexts are named contexts: directories of the suite.
	Contexts map[string]string `json:"contexts"`
	// BaseFiles are Dockerfiles of images that BuildKit builds first, by the name
	// that the Dockerfile knows them under. A "#STAGE" behind one is its target.
	BaseFiles map[string]string `json:"baseFiles"`
	// BaseTars are images of one layer each, an uncompressed tar as it is, by the
	// name that the Dockerfile knows them under.
	BaseTars map[string]string `json:"baseTars"`
	// Serve makes the context a web site; the build argument HTTP is its address.
	Serve bool `json:"serve"`
	// Fails is a build that must fail with both builders. Error is a part of both
	// messages, Says of ours alone.
	Fails bool   `json:"fails"`
	Error string `json:"error"`
	Says  string `json:"says"`
	// InPlace is a part of the message that a build in place is refused with.
	InPlace string `json:"inPlace"`
	// Skip is why the case cannot run.
	Skip string `json:"skip"`
	// Slow is a case that samples leave out.
	Slow bool `json:"slow"`
}

// Exemption allows a difference.
type Exemption struct {
	// Case and Line are regular expressions of the case's name and of the
	// difference as it is printed, both whole.
	Case string `json:"case"`
	Line string `json:"line"`
	Why  string `json:"why"`
	// Isolation is where it holds; empty is everywhere.
	Isolation string `json:"isolation"`
}

func (e Exemption) covers(name, isolation, line string) bool {
	return (e.Isolation == "" || e.Isolation == isolation) && whole(e.Case).MatchString(name) && whole(e.Line).MatchString(line)
}

func whole(expression string) *regexp.Regexp { return regexp.MustCompile("^(?:" + expression + ")$") }

// readTable reads the table of the suite in dir. Without a file every Dockerfile*
// of it is a case.
func readTable(dir, file string) (*table, error) {
	t := &table{}
	if file != "" {
		if err := readJSON(file, t); err != nil {
			return nil, err
		}
	} else if err := t.find(dir); err != nil {
		return nil, err
	}
	return t, t.complete(dir)
}

func readJSON(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return decode(file, data, into)
}

// decode refuses fields that do not exist: a misspelt one would test nothing.
func decode(file string, data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func (t *table) find(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "Dockerfile*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() && filepath.Ext(f) != ".dockerignore" {
			t.Cases = append(t.Cases, Case{Name: filepath.Base(f), Dockerfile: filepath.Base(f)})
		}
	}
	if len(t.Cases) == 0 {
		return fmt.Errorf("%s: there is no Dockerfile*: give a -table", dir)
	}
	return nil
}

// complete fills defaults in and checks what can be checked before a build.
func (t *table) complete(dir string) error {
	var err error
	if t.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	bases := map[string]string{}
	for name, image := range t.Bases {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("base %q: %w", name, err)
		}
		image, err = expand(image)
		if err != nil {
			return fmt.Errorf("base %s: %w", name, err)
		}
		// BuildKit looks named contexts up under the short name.
		bases[strings.TrimSuffix(reference.FamiliarString(named), ":latest")] = image
	}
	t.Bases = bases
	for _, e := range t.Exemptions {
		if e.Why == "" {
			return fmt.Errorf("the exemption of %s says no reason", e.Case)
		}
		for _, expression := range []string{e.Case, e.Line} {
			if _, err := regexp.Compile(expression); err != nil {
				return fmt.Errorf("the exemption of %s: %w", e.Case, err)
			}
		}
	}
	for i := range t.Cases {
		c := &t.Cases[i]
		if c.Name == "" {
			return fmt.Errorf("case %d has no name", i)
		}
		c.Dockerfile = cmp.Or(c.Dockerfile, "Dockerfile")
		c.Platform = cmp.Or(c.Platform, "linux/amd64")
		c.Fails = c.Fails || c.Error != "" || c.Says != ""
	}
	slices.SortStableFunc(t.Cases, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func expand(s string) (string, error) {
	var missing error
	out := os.Expand(s, func(name string) string {
		v := os.Getenv(name)
		if v == "" {
			missing = errors.Join(missing, needs(name))
		}
		return v
	})
	return out, missing
}

// needs is the error of an absent service.
func needs(variable string) error {
	return fmt.Errorf("%s is not set: run this under test/with-services.sh --bases --oracle --docker", variable)
}
