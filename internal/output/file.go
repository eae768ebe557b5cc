package output

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces a file at once. Its directory is made when missing.
func WriteFile(name string, data []byte) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Links, too, stay what they are: /dev/stdout is one.
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		// /dev/termination-log and pipes cannot be replaced.
		return os.WriteFile(name, data, 0o644)
	}
	f, err := os.CreateTemp(dir, ".kaniko-multiarch-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
