package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// debs downloads Debian 12 packages of one architecture. Its apt has lists and
// caches of its own, so neither the machine's release nor its dpkg architectures
// matter; proxy settings are the machine's.
type debs struct {
	dir  string // holds apt's state and the packages
	conf string // APT_CONFIG
	arch string // as Debian calls it
}

// debianArch gives Debian's name for a platform's architecture.
var debianArch = map[string]string{
	"amd64":  "amd64",
	"arm64":  "arm64",
	"arm/v7": "armhf",
	"s390x":  "s390x",
}

const (
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	mirror  = "http://deb.debian.org/debian"
)

func newDebs(cache string, p *v1.Platform) (*debs, error) {
	key := p.Architecture
	if p.Architecture == "arm" {
		key += "/" + p.Variant
	}
	arch, ok := debianArch[key]
	if !ok {
		return nil, fmt.Errorf("no Debian architecture is known for %s: add it to debianArch", key)
	}
	d := &debs{dir: filepath.Join(cache, arch), arch: arch}
	d.conf = filepath.Join(d.dir, "apt.conf")
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "parts", "debs"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	files := map[string]string{
		"status":       "",
		"sources.list": fmt.Sprintf("deb [signed-by=%s] %s bookworm main\n", keyring, mirror),
		"apt.conf":     d.config(),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	_, err := d.apt("parts", "update")
	return d, err
}

func (d *debs) config() string {
	return fmt.Sprintf(`APT::Architecture "%[1]s";
#clear APT::Architectures;
APT::Architectures { "%[1]s"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "%[2]s/state";
Dir::State::status "%[2]s/status";
Dir::Cache "%[2]s/cache";
Dir::Etc::SourceList "%[2]s/sources.list";
Dir::Etc::SourceParts "%[2]s/parts";
Dir::Etc::PreferencesParts "%[2]s/parts";
`, d.arch, d.dir)
}

// apt runs apt-get in the subdirectory dir.
func (d *debs) apt(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("apt-get", append([]string{"-q"}, args...)...)
	cmd.Dir = filepath.Join(d.dir, dir)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+d.conf, "LC_ALL=C")
	out, err := output(cmd)
	if err != nil {
		return nil, fmt.Errorf("apt-get %s for %s: %w", args[0], d.arch, err)
	}
	return out, nil
}

// fetch downloads the newest version of each package, unless it is there, and
// returns the files in the packages' order.
func (d *debs) fetch(packages []string) ([]string, error) {
	// In the empty directory: apt-get names only what is not there yet.
	uris, err := d.apt("parts", append([]string{"download", "--print-uris"}, packages...)...)
	if err != nil {
		return nil, err
	}
	if _, err := d.apt("debs", append([]string{"download"}, packages...)...); err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(string(uris)) {
		// 'URI' FILE SIZE HASH
		if fields := strings.Fields(line); len(fields) == 4 {
			files = append(files, filepath.Join(d.dir, "debs", fields[1]))
		}
	}
	if len(files) != len(packages) {
		return nil, fmt.Errorf("apt-get named %d files for %d packages:\n%s", len(files), len(packages), uris)
	}
	return files, nil
}

// unpack adds the files of the packages to t.
func (d *debs) unpack(t tree, packages []string, skip func(path string) bool) error {
	files, err := d.fetch(packages)
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := output(exec.Command("dpkg-deb", "--fsys-tarfile", file))
		if err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		if err := t.addTar(tar.NewReader(bytes.NewReader(data)), skip); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return nil
}

// output runs cmd and puts what it said into the error.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}
