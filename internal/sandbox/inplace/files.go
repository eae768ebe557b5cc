package inplace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// maxFileSize bounds the files that are kept in the journal, in bytes.
const maxFileSize = 1 << 20

// savedFile is a file of the container that cannot be moved: a step that
// writes to it, or adds hosts, must leave no trace.
type savedFile struct {
	Path     string
	Mode     uint32
	UID, GID int
	// Times are those of access and of modification.
	Times [2]unix.Timespec
	Data  []byte
}

// saveFiles reads those of the container's own files in /etc that are there.
func saveFiles(root string) ([]savedFile, error) {
	var out []savedFile
	for _, p := range etcFiles() {
		f, err := os.OpenFile(root+"/"+p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading /%s: %w", p, sandbox.Cause(err))
		}
		saved, err := saveFile(f, p)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("reading /%s: %w", p, sandbox.Cause(err))
		}
		if saved != nil {
			out = append(out, *saved)
		}
	}
	return out, nil
}

func saveFile(f *os.File, p string) (*savedFile, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxFileSize {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize))
	if err != nil {
		return nil, err
	}
	return &savedFile{Path: p, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Times: [2]unix.Timespec{st.Atim, st.Mtim}, Data: data}, nil
}

// restore writes only what has changed. A file that is a mount cannot be
// replaced.
func (s *savedFile) restore(path string) error {
	if err := s.restoreData(path); err != nil {
		return fmt.Errorf("restoring /%s: %w", s.Path, sandbox.Cause(err))
	}
	return nil
}

func (s *savedFile) restoreData(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	now, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(now, s.Data) {
		if err := rewrite(f, s.Data); err != nil {
			return err
		}
	}
	if int(st.Uid) != s.UID || int(st.Gid) != s.GID {
		if err := f.Chown(s.UID, s.GID); err != nil {
			return err
		}
	}
	if st.Mode&0o7777 != s.Mode {
		if err := unix.Fchmod(int(f.Fd()), s.Mode); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, s.Times[:], unix.AT_SYMLINK_NOFOLLOW)
}

func rewrite(f *os.File, data []byte) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(data, 0)
	return err
}

// show makes the process find other content in a file of the container.
func (s *savedFile) show(root string, data []byte) error {
	f, err := os.OpenFile(root+"/"+s.Path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err == nil {
		err = errors.Join(rewrite(f, data), f.Close())
	}
	if err != nil {
		return &sandbox.UnsupportedError{
			What: fmt.Sprintf("a step's own content in /%s: %v", s.Path, sandbox.Cause(err)),
			Fix:  "make that file of the builder's container writable, or use --isolation=namespaces",
		}
	}
	return nil
}

// hostsWith adds lines to a hosts file.
func hostsWith(hosts []byte, extra []sandbox.HostIP) []byte {
	var b strings.Builder
	b.Write(hosts)
	if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
		b.WriteByte('\n')
	}
	for _, h := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Host)
	}
	return []byte(b.String())
}
