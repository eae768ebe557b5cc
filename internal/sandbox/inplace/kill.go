package inplace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killDelay is how long killed processes are given to end before the next look.
const killDelay = time.Millisecond

// killDescendants kills all descendants of this process, and waits for them.
// It must be the reaper of orphans, and have no children that are to live. A
// process may start another one while we look, so it goes on until there is
// none.
func killDescendants() error {
	for {
		if gone, err := reap(); gone || err != nil {
			return err
		}
		parents, err := processes()
		if err != nil {
			return err
		}
		for pid := range parents {
			if descends(parents, pid, os.Getpid()) {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
		time.Sleep(killDelay)
	}
}

// reap waits for those that have ended. gone tells that no child is left, and
// then there is no descendant either.
func reap() (gone bool, err error) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return true, nil
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("waiting for processes: %w", err)
		case pid == 0:
			return false, nil
		}
	}
}

// processes returns the parent of each process.
func processes() (map[int]int, error) {
	names, err := readNames("/proc")
	if err != nil {
		return nil, fmt.Errorf("looking for processes: %w", err)
	}
	out := map[int]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		// "PID (NAME) STATE PARENT ...": the name may contain anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(string(fields[1])); err == nil {
			out[pid] = parent
		}
	}
	return out, nil
}

func descends(parents map[int]int, pid, from int) bool {
	// A list that is read while processes come and go may have a loop.
	for range len(parents) {
		parent, ok := parents[pid]
		if !ok {
			return false
		}
		if parent == from {
			return true
		}
		pid = parent
	}
	return false
}
