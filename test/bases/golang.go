package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// unneeded are the parts of a Go installation that a build does not read.
var unneeded = []string{"api", "doc", "lib/fips140", "misc", "pkg/obj", "src/cmd", "test"}

// goTree is this machine's Go, at the official image's place.
func goTree() (t tree, version string, err error) {
	out, err := output(exec.Command("go", "env", "GOROOT", "GOVERSION"))
	if err != nil {
		return nil, "", err
	}
	fields := strings.Fields(string(bytes.TrimSpace(out)))
	goroot, version := fields[0], strings.TrimPrefix(fields[1], "go")

	const home = "usr/local/go"
	t = tree{}
	for _, dir := range []string{"go", "go/src", "go/bin"} {
		t.dir(dir, 0o1777)
	}
	err = filepath.WalkDir(goroot, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(goroot, path)
		if err != nil {
			return err
		}
		name := filepath.Join(home, rel)
		switch {
		case d.IsDir() && (slices.Contains(unneeded, rel) || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir():
			t.dir(name, 0o755)
			return nil
		case strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		t.file(name, 0o644|int64(info.Mode().Perm()&0o111), data)
		return nil
	})
	return t, version, err
}

// certificates adds what the package ca-certificates makes when it is installed:
// the bundle that programs read.
func (d *debs) certificates(t tree) error {
	files := tree{}
	if err := d.unpack(files, []string{"ca-certificates"}, documentation); err != nil {
		return err
	}
	var bundle bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, "usr/share/ca-certificates/") && strings.HasSuffix(name, ".crt") {
			bundle.Write(bytes.TrimSpace(files[name].data))
			bundle.WriteByte('\n')
		}
	}
	if bundle.Len() == 0 {
		return fmt.Errorf("no certificate in the package ca-certificates")
	}
	maps.Copy(t, files)
	for _, dir := range []string{"etc/ssl", "etc/ssl/certs", "usr/local/share/ca-certificates"} {
		t.dir(dir, 0o755)
	}
	t.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle.Bytes())
	return nil
}
