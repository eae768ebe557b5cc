package filetree

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a name may lead through, that of the
// copier.
const maxLinks = 255

var errLinks = errors.New("too many symbolic links")

// resolver follows links as continuity's fs.RootPath does, which the copier
// uses: link by link, ".." behind a link taken off the name that it led to.
type resolver struct {
	tree  Tree
	links int
}

// Resolve returns the name that name leads to. Its end need not exist.
func Resolve(t Tree, name string) (string, error) {
	r := &resolver{tree: t}
	for {
		before := r.links
		next, err := r.pass(name)
		if err != nil {
			return "", err
		}
		clean := path.Join("/", next)
		if r.links == before && next == clean {
			return clean, nil
		}
		name = next
		if r.links == before {
			name = clean
		}
	}
}

// ResolveParent is Resolve, but leaves a link at the end of name alone.
func ResolveParent(t Tree, name string) (string, error) {
	name = path.Join("/", name)
	if name == "/" {
		return name, nil
	}
	dir, err := Resolve(t, path.Dir(name))
	return path.Join(dir, path.Base(name)), err
}

// pass follows each link that a part of name is, once.
func (r *resolver) pass(name string) (string, error) {
	name = strings.TrimRight(name, "/")
	if name == "" {
		return "/", nil
	}
	dir, base := path.Split(name)
	above, err := r.pass(dir)
	if err != nil {
		return "", err
	}
	at := path.Join("/", above, base)
	if at == "/" {
		return at, nil
	}
	st, err := r.look(at)
	if err != nil {
		return "", err
	}
	if st == nil || !st.IsLink() {
		return at, nil
	}
	if r.links++; r.links > maxLinks {
		return "", errLinks
	}
	if path.IsAbs(st.Target) {
		return st.Target, nil
	}
	return path.Join("/", above, st.Target), nil
}

// look is Lstat; nil is what is not there.
func (r *resolver) look(name string) (*Stat, error) {
	st, err := r.tree.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return st, err
}

// Glob returns what a pattern stands for, without a slash in front. Links before
// the first wildcard are followed, the last of them only with follow. Wildcards
// match within one part of a name each.
func Glob(t Tree, pattern string, follow bool) ([]string, error) {
	fixed, wild := split(pattern)
	if wild == "" {
		return []string{fixed}, nil
	}
	find := ResolveParent
	if follow {
		find = Resolve
	}
	base, err := find(t, fixed)
	if err != nil {
		return nil, err
	}
	st, err := t.Lstat(base)
	if err != nil || !st.IsDir() {
		return nil, err
	}
	var out []string
	err = walk(t, base, func(name string) (bool, error) {
		rel := strings.TrimPrefix(name[len(base):], "/")
		// A pattern that is none matches nothing, as in the copier.
		if match, _ := filepath.Match(wild, rel); !match {
			return true, nil
		}
		out = append(out, name[1:])
		return false, nil
	})
	return out, err
}

// walk calls fn for all below dir, in lexical order; fn says whether to go into
// what it got.
func walk(t Tree, dir string, fn func(name string) (bool, error)) error {
	names, err := t.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, base := range names {
		name := path.Join(dir, base)
		deeper, err := fn(name)
		if err != nil {
			return err
		}
		st, err := t.Lstat(name)
		if err != nil {
			return err
		}
		if !deeper || !st.IsDir() {
			continue
		}
		if err := walk(t, name, fn); err != nil {
			return err
		}
	}
	return nil
}

// split cuts a pattern before its first part with a wildcard.
func split(pattern string) (fixed, wild string) {
	parts := strings.Split(strings.Trim(path.Clean("/"+pattern), "/"), "/")
	for i, p := range parts {
		if hasWildcard(p) {
			return "/" + strings.Join(parts[:i], "/"), strings.Join(parts[i:], "/")
		}
	}
	return path.Join("/", pattern), ""
}

func hasWildcard(part string) bool {
	for i := 0; i < len(part); i++ {
		switch part[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// Follow finds name among files that are known by their real names only, as the
// kernel would on a disk: it goes through all links but one at the end. Those that
// are absolute, or that climb above the root, lead out of the tree there, to where
// nothing is.
func Follow(name string, file func(name string) (*Stat, bool)) (*Stat, error) {
	missing := func(err error) error { return &fs.PathError{Op: "lstat", Path: name, Err: err} }
	at, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		if at == "/" && rest[0] == ".." {
			return nil, missing(fs.ErrNotExist)
		}
		next := path.Join(at, rest[0])
		last := len(rest) == 1
		rest = rest[1:]
		st, ok := file(next)
		switch {
		case !ok:
			return nil, missing(fs.ErrNotExist)
		case st.IsLink() && !last:
			if links++; links > maxLinks {
				return nil, missing(errLinks)
			}
			if path.IsAbs(st.Target) {
				return nil, missing(fs.ErrNotExist)
			}
			rest = append(strings.Split(st.Target, "/"), rest...)
			continue
		case !st.IsDir() && !last:
			return nil, missing(syscall.ENOTDIR)
		}
		at = next
	}
	st, _ := file(at)
	return st, nil
}
