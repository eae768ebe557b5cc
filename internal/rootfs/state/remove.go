package state

import (
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// enough is how many directories are looked for to keep all processors busy.
const enough = 64

// RemoveAll is os.RemoveAll with several hands: removing the files of an image
// takes as long as making them.
func RemoveAll(dir string) error {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, path := range spread(dir) {
		// What is left, and why, is for the last call to say.
		group.Go(func() error { _ = os.RemoveAll(path); return nil })
	}
	_ = group.Wait()
	return os.RemoveAll(dir)
}

// spread lists what is in dir, without its own first levels: so deep that there
// is enough to share out.
func spread(dir string) []string {
	var rest []string
	open := []string{dir}
	for len(open) > 0 && len(open) < enough {
		next := open[0]
		open = open[1:]
		list, err := os.ReadDir(next)
		if err != nil {
			continue
		}
		for _, e := range list {
			path := filepath.Join(next, e.Name())
			if e.IsDir() {
				open = append(open, path)
			} else {
				rest = append(rest, path)
			}
		}
	}
	return append(open, rest...)
}

// Discard removes files of this build that nobody needs any more, beside
// whatever goes on. Close waits for it, and removes what could not be removed.
func (s *State) Discard(paths ...string) {
	release, err := s.Hold()
	if err != nil {
		return // Close has removed them.
	}
	go func() {
		defer release()
		for _, path := range paths {
			_ = RemoveAll(path)
		}
	}()
}
