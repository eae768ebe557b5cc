package buildcontext

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Kind is how a context is had.
type Kind int

const (
	// Directory is on this machine; Open opens it.
	Directory Kind = iota
	// Archive is a tar on this machine, Stdin one on the standard input.
	Archive
	Stdin
	// Download is a tar behind a URL.
	Download
	// Git is a repository.
	Git
	// Registry is an artifact of package ocicontext.
	Registry
)

// Location is where a context is.
type Location struct {
	Kind Kind
	// Path is a directory or file; URL what to download or clone, or the reference
	// in a registry.
	Path, URL string
	// Ref is a branch, tag, full reference or commit; empty for the default
	// branch. Commit, if set, is what to take of it.
	Ref, Commit string
	// SubPath is a directory in the context.
	SubPath string
}

// Parse reads where a context is, in kaniko's words: a directory, dir://,
// file://, tar://FILE, tar://stdin (or -), https://HOST/FILE.tar.gz,
// git://HOST/REPO[#REF[#COMMIT]]. As in docker, https://HOST/REPO.git is a
// repository and #REF:DIR names a directory in it. What cannot be had is an
// ErrUnsupported.
func Parse(location string) (Location, error) {
	if location == "-" {
		return Location{Kind: Stdin}, nil
	}
	m := scheme.FindStringSubmatch(location)
	if m == nil {
		dir, err := localPath(location)
		return Location{Path: dir}, err
	}
	rest := location[len(m[0]):]
	switch s := strings.ToLower(m[1]); s {
	case "tar":
		if rest == "stdin" {
			return Location{Kind: Stdin}, nil
		}
		return Location{Kind: Archive, Path: rest}, nil
	case "git":
		return gitLocation("https://" + rest)
	case "oci":
		return Location{Kind: Registry, URL: rest}, nil
	case "http", "https":
		return webLocation(s + "://" + rest)
	}
	dir, err := localPath(location)
	return Location{Path: dir}, err
}

func webLocation(address string) (Location, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		// The text of the error holds the URL, which can hold a password.
		return Location{}, errors.New("a URL has a host: https://HOST/FILE.tar.gz")
	}
	if strings.HasSuffix(u.Path, ".git") {
		return gitLocation(address)
	}
	if strings.Contains(u.Hostname(), ".blob.core.") && u.RawQuery == "" {
		return Location{}, unsupported("a context in Azure's storage without a signature", "use a URL with a SAS token, or download and unpack it")
	}
	return Location{Kind: Download, URL: address}, nil
}

// gitLocation reads a repository's URL and what stands behind #.
func gitLocation(address string) (Location, error) {
	address, fragment, _ := strings.Cut(address, "#")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return Location{}, errors.New("a repository has a host and a path: git://HOST/REPO.git#refs/heads/main")
	}
	l := Location{Kind: Git, URL: address}
	l.Ref, l.Commit, _ = strings.Cut(fragment, "#")
	l.Ref, l.SubPath, _ = strings.Cut(l.Ref, ":")
	if l.SubPath != "" && strings.HasPrefix(path.Clean(l.SubPath), "..") {
		return Location{}, fmt.Errorf("%s leaves the repository", l.SubPath)
	}
	if isCommit(l.Ref) {
		l.Ref, l.Commit = "", l.Ref
	}
	if l.Commit != "" && !isCommit(l.Commit) {
		return Location{}, fmt.Errorf("commit %q: give all of its 40 digits", l.Commit)
	}
	return l, nil
}

func isCommit(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// Below is a directory in a context. Links do not lead out of it.
func Below(dir, sub string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	info, err := root.Stat(filepath.Clean(sub))
	if err != nil || !info.IsDir() {
		return "", fmt.Errorf("the context has no directory %s", sub)
	}
	return filepath.EvalSymlinks(filepath.Join(dir, sub))
}
