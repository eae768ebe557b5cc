package inplace

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// phase is how far a swap has come.
type phase int

const (
	// entering: things are moved aside, then the tree is moved in.
	entering phase = iota
	// swapped: the process may run, and what is in the root belongs to the tree.
	swapped
	// leaving: nothing in the root belongs to the tree any more.
	leaving
)

// state is all that it takes to put everything back. Paths without a leading
// slash are relative to the root, and the same in the tree and in the stash.
type state struct {
	Root, Tree, Stash string
	// Space is mountSpace of the builder: another one later means that the
	// container was started again, and all its mounts were made anew.
	Space string
	Phase phase
	// Levels are the directories whose children are moved one by one, parents
	// first.
	Levels []level
	// Stashed is what was moved, or was about to be, from root to stash; Placed
	// from tree to root.
	Stashed, Placed []string
	Files           []savedFile
	Devices         []device
	Mounts          []binding
}

// level is a directory of the root that cannot be moved as a whole.
type level struct {
	Path string
	// Keeps are the names in it that stay where they are.
	Keeps []string
	// Own means that it is the builder's: all that was in it stays.
	Own bool
	// Both means that the tree has this directory, too, with Tree as its looks.
	Both bool
	Tree attrs
	// Was is what it looked like.
	Was attrs
	// Removed means that it was removed, or was about to be, when all that was
	// in it had been moved.
	Removed bool
}

// record is one change of a state. It is written before the change is made; one
// for all names of a directory, since an encoder costs more than a rename.
type record struct {
	Begin           *state
	Level           *level
	Stashed, Placed []string
	Mount           *binding
	Files           []savedFile
	Devices         []device
}

func (s *state) apply(r record) {
	switch {
	case r.Begin != nil:
		*s = *r.Begin
	case r.Level != nil:
		// What has turned out to be a level is not moved.
		s.Stashed = slices.DeleteFunc(s.Stashed, func(p string) bool { return p == r.Level.Path })
		if i := slices.IndexFunc(s.Levels, func(l level) bool { return l.Path == r.Level.Path }); i >= 0 {
			s.Levels[i] = *r.Level
			return
		}
		s.Levels = append(s.Levels, *r.Level)
	case r.Stashed != nil:
		s.Stashed = append(s.Stashed, r.Stashed...)
	case r.Placed != nil:
		s.Placed = append(s.Placed, r.Placed...)
	case r.Mount != nil:
		if n := len(s.Mounts); n > 0 && s.Mounts[n-1].Aside == r.Mount.Aside {
			s.Mounts[n-1] = *r.Mount
			return
		}
		s.Mounts = append(s.Mounts, *r.Mount)
	case r.Files != nil:
		s.Files = r.Files
	case r.Devices != nil:
		s.Devices = r.Devices
	}
}

func (s *state) level(path string) *level {
	i := slices.IndexFunc(s.Levels, func(l level) bool { return l.Path == path })
	if i < 0 {
		return nil
	}
	return &s.Levels[i]
}

func (s *state) inRoot(path string) string  { return filepath.Join(s.Root, path) }
func (s *state) inTree(path string) string  { return filepath.Join(s.Tree, path) }
func (s *state) inStash(path string) string { return filepath.Join(s.Stash, path) }

// journal is a state in memory and on disk. That on disk is read when the
// builder was killed; a process that deletes it does no harm otherwise.
//
// The file has the phase in its first byte, which can be changed on a full disk
// as well, and then records, each after its length and checksum. It is not
// synced: it must outlive our process, and a container does not outlive its
// machine.
type journal struct {
	state
	file storage
	// name is where the file is when it is complete.
	name string
	end  int64
	// lost are paths of the root that the process has deleted; faults is what
	// else it did that could not be undone. Trying again is in vain.
	lost   []string
	faults []error
	// fresh are the mount points of a container that was started again.
	fresh map[string]bool
}

// storage is the file of a journal.
type storage interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Name() string
}

// headerSize is that of a record's length and checksum, in bytes.
const headerSize = 8

// newJournal begins the journal of a swap. The caller has locked the root. The
// file gets its name when it can be read: another builder that looks for one
// finds it complete or not at all.
func newJournal(name string, begin state) (*journal, *os.File, error) {
	fresh := name + ".new"
	file, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("making a journal: %w", err)
	}
	j := &journal{file: file, name: fresh, end: 1}
	err = errors.Join(j.reach(entering), j.note(record{Begin: &begin}))
	if err == nil {
		err = os.Rename(fresh, name)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("making a journal: %w", err), j.close())
	}
	j.name = name
	return j, file, nil
}

// reach tells that a phase begins.
func (j *journal) reach(p phase) error {
	j.Phase = p
	if _, err := j.file.WriteAt([]byte{byte(p)}, 0); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

func (j *journal) note(r record) error {
	j.apply(r)
	var buf bytes.Buffer
	buf.Write(make([]byte, headerSize))
	if err := gob.NewEncoder(&buf).Encode(r); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	head, body := buf.Bytes()[:headerSize], buf.Bytes()[headerSize:]
	binary.LittleEndian.PutUint32(head, uint32(len(body)))
	binary.LittleEndian.PutUint32(head[4:], crc32.ChecksumIEEE(body))
	n, err := j.file.WriteAt(buf.Bytes(), j.end)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.end += int64(n)
	return nil
}

// close removes the file as well. All must be back.
func (j *journal) close() error {
	err := os.Remove(j.name)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, j.file.Close())
}

// blame is the error of a process that reached for what is not its own.
func (j *journal) blame() error {
	err := errors.Join(j.faults...)
	if len(j.lost) > 0 {
		err = errors.Join(err, &LostError{Paths: j.lost})
	}
	return err
}

// readJournal reads what a builder wrote until it was killed. The last record
// may be incomplete, or on a full disk have an incomplete one behind it: the
// change that such a record announces was not made.
func readJournal(file *os.File) (*journal, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	content := make([]byte, info.Size())
	if _, err := file.ReadAt(content, 0); err != nil {
		return nil, err
	}
	j := &journal{file: file, name: file.Name(), end: 1}
	for rest := content[min(1, len(content)):]; len(rest) >= headerSize; {
		size, sum := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:])
		body := rest[headerSize:]
		if uint64(size) > uint64(len(body)) || crc32.ChecksumIEEE(body[:size]) != sum {
			break
		}
		var r record
		if err := gob.NewDecoder(bytes.NewReader(body[:size])).Decode(&r); err != nil {
			return nil, fmt.Errorf("another version of this program wrote it: %w", err)
		}
		j.apply(r)
		rest = body[size:]
		j.end += headerSize + int64(size)
	}
	if j.Root == "" {
		return nil, errors.New("it was overwritten")
	}
	j.Phase = phase(content[0])
	return j, nil
}
