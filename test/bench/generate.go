package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// contextTime is when all files that are made here were changed.
var contextTime = time.Date(2020, 2, 2, 2, 2, 2, 0, time.UTC)

// bytesOf is a source of the same bytes in every run: noise, or text that
// compresses to a third.
type bytesOf struct {
	rng  *rand.ChaCha8
	text []byte
}

// textSize is far beyond the 32 KiB that gzip looks back.
const textSize = 4 << 20

func newBytes() *bytesOf {
	b := &bytesOf{rng: rand.NewChaCha8([32]byte{'b', 'e', 'n', 'c', 'h'})}
	words := make([]string, 4000)
	for i := range words {
		word := make([]byte, 3+b.rng.Uint64()%8)
		for j := range word {
			word[j] = 'a' + byte(b.rng.Uint64()%26)
		}
		words[i] = string(word)
	}
	var text bytes.Buffer
	for text.Len() < 2*textSize {
		text.WriteString(words[b.rng.Uint64()%uint64(len(words))])
		text.WriteByte(" \n"[b.rng.Uint64()%2])
	}
	b.text = text.Bytes()
	return b
}

func (b *bytesOf) noise(n int) []byte {
	p := make([]byte, n)
	b.rng.Read(p) //nolint:errcheck // it never fails
	return p
}

// words gives at most textSize bytes.
func (b *bytesOf) words(n int) []byte {
	at := int(b.rng.Uint64() % textSize)
	return b.text[at : at+n]
}

const copiedFiles = 4096

// copied is 1 GiB: in each group of 16 files one of 2 MiB and fifteen that share
// 2 MiB; every second group is noise.
func copied(dir string) error {
	const group = 16
	b := newBytes()
	for i := range copiedFiles {
		size := 2 << 20
		if i%group != 0 {
			size /= group - 1
		}
		data := b.words
		if i/group%2 == 1 {
			data = b.noise
		}
		if err := write(filepath.Join(dir, "files", fmt.Sprint(i/128), fmt.Sprint(i)), data(size)); err != nil {
			return err
		}
	}
	return nil
}

// write makes a file of contextTime, and its directory.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	return os.Chtimes(path, contextTime, contextTime)
}

// The size of M1's Go tree.
const (
	goTreeFiles = 5400
	goTreeBytes = 78_000_000
)

// goTree copies files of this machine's Go until there are enough of them.
func goTree(name string) func(dir string) error {
	return func(dir string) error {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return fmt.Errorf("go env GOROOT: %w", err)
		}
		root := filepath.Join(strings.TrimSpace(string(out)), "src")
		files, size := 0, 0
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			// Large files of test data would fill it early.
			if len(data) > 256<<10 || size+len(data) > goTreeBytes {
				return nil
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			if files, size = files+1, size+len(data); files == goTreeFiles {
				err = fs.SkipAll
			}
			if wrote := write(filepath.Join(dir, name, rel), data); wrote != nil {
				return wrote
			}
			return err
		})
		if err == nil && files < goTreeFiles/2 {
			err = fmt.Errorf("only %d files in %s: no Go with its sources", files, root)
		}
		return err
	}
}

// changeSource gives one file of the Go tree other content in every round.
func changeSource(dir string, round int) error {
	return write(filepath.Join(dir, "src", "changed.go"), fmt.Appendf(nil, "package src\n\nconst round = %d\n", round))
}

// program is a Go tree with a program in it that needs nothing but Go's runtime:
// the compiler is no part of what is compared.
func program(dir string) error {
	if err := goTree("src")(dir); err != nil {
		return err
	}
	source := "package main\n\nfunc main() { println(\"Hello\") }\n"
	if err := write(filepath.Join(dir, "go.mod"), []byte("module example.com/app\n\ngo 1.26\n")); err != nil {
		return err
	}
	// Not part of the program's module.
	if err := write(filepath.Join(dir, "src", "go.mod"), []byte("module example.com/src\n")); err != nil {
		return err
	}
	return write(filepath.Join(dir, "app", "main.go"), []byte(source))
}

func oneFile(dir string) error { return write(filepath.Join(dir, "file"), []byte("one\n")) }
