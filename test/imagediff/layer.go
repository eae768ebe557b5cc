package imagediff

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// entry is a file and the name that its layer gives it; a whiteout has only that.
type entry struct {
	name, link string // link is the other name of a hard link
	*file
}

func (e entry) removes() bool { return strings.HasPrefix(path.Base(e.name), whiteout) }

// Layers remembers the entries of layers: images of one base are compared
// without reading it again. It is safe for concurrent use.
type Layers struct {
	mu   sync.Mutex
	seen map[v1.Hash]func() ([]entry, error)
}

func (l *Layers) entries(layer v1.Layer) ([]entry, error) {
	if l == nil {
		return readLayer(layer)
	}
	id, err := layer.Digest()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	if l.seen == nil {
		l.seen = map[v1.Hash]func() ([]entry, error){}
	}
	get, ok := l.seen[id]
	if !ok {
		get = sync.OnceValues(func() ([]entry, error) { return readLayer(layer) })
		l.seen[id] = get
	}
	l.mu.Unlock()
	return get()
}

func readLayer(layer v1.Layer) ([]entry, error) {
	r, err := layer.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var entries []entry
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		e := entry{name: path.Clean("/" + h.Name)}
		switch {
		case e.removes():
		case h.Typeflag == tar.TypeLink:
			e.link = path.Clean("/" + h.Linkname)
		default:
			if e.file, err = read(h, archive); err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
		}
		entries = append(entries, e)
	}
}

func read(h *tar.Header, content io.Reader) (*file, error) {
	f := &file{
		kind: h.Typeflag, mode: h.Mode, uid: h.Uid, gid: h.Gid, size: h.Size, target: h.Linkname,
		major: h.Devmajor, minor: h.Devminor, xattrs: map[string]string{}, modified: h.ModTime,
	}
	const xattr = "SCHILY.xattr."
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattr); ok {
			f.xattrs[name] = value
		}
	}
	if h.Typeflag != tar.TypeReg {
		return f, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, content); err != nil {
		return nil, err
	}
	f.sum = fmt.Sprintf("%x", sum.Sum(nil))
	return f, nil
}
