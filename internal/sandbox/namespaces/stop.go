package namespaces

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stop ends a process that is pid 1 of its namespace; with it ends all that it
// started. The kernel keeps SIGTERM from a pid 1 that has no handler for it, so
// waiting would be in vain.
func (r *Runner) stop(p *os.Process, done <-chan struct{}) {
	if handles(p, syscall.SIGTERM) && p.Signal(syscall.SIGTERM) == nil {
		select {
		case <-done:
			return
		case <-time.After(r.grace):
		}
	}
	// It fails when the process has ended, which is what we want.
	_ = p.Kill()
}

// handles tells whether p has a handler for a signal; true when in doubt.
func handles(p *os.Process, signal syscall.Signal) bool {
	var pid string
	// /proc may belong to a pid namespace above ours, so p.Pid is not the name
	// of the process there.
	err := p.WithHandle(func(fd uintptr) {
		pid = field(fmt.Sprintf("/proc/self/fdinfo/%d", fd), "Pid:")
	})
	if err != nil || pid == "" {
		return true
	}
	caught, err := strconv.ParseUint(field("/proc/"+pid+"/status", "SigCgt:"), 16, 64)
	if err != nil {
		return true
	}
	return caught&(1<<(signal-1)) != 0
}

// field returns what follows a name at the start of a line, "" for none.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
