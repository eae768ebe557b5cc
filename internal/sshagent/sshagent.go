// Package sshagent hands SSH agents on to build steps and to git: the user's own
// agent, or one that this process makes of key files. What asks may sign and
// list keys, nothing else.
//
// It must not know what a step or a repository is.
package sshagent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKey is the most that is read of a key file, in bytes.
const maxKey = 100 << 10

// Source is one agent: the socket of a running one, or the files of its keys.
// Without paths it is the agent that SSH_AUTH_SOCK names.
type Source struct {
	ID    string
	Paths []string
}

// Agents are open agents by their ID. They are safe for concurrent use.
type Agents struct{ byID map[string]dialer }

// dialer connects to an agent; the closer ends the connection.
type dialer func() (agent.ExtendedAgent, io.Closer, error)

// Open opens the sources: keys are read, and sockets are held open, so that
// they work even while their path leads elsewhere. The errors name the source.
func Open(sources []Source, getenv func(string) string) (*Agents, error) {
	a := &Agents{byID: map[string]dialer{}}
	for _, s := range sources {
		if a.byID[s.ID] != nil {
			return nil, fmt.Errorf("ssh agent %q is given twice", s.ID)
		}
		paths := s.Paths
		if len(paths) == 0 {
			socket := getenv("SSH_AUTH_SOCK")
			if socket == "" {
				return nil, fmt.Errorf("ssh agent %q: SSH_AUTH_SOCK is not set: start an agent, or name a key file: %s=FILE", s.ID, s.ID)
			}
			paths = []string{socket}
		}
		d, err := open(paths)
		if err != nil {
			return nil, fmt.Errorf("ssh agent %q: %w", s.ID, err)
		}
		a.byID[s.ID] = d
	}
	return a, nil
}

func open(paths []string) (dialer, error) {
	keys, sockets := agent.NewKeyring(), 0
	var d dialer
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.Mode()&os.ModeSocket != 0 {
			sockets++
			if d, err = socketDialer(path); err != nil {
				return nil, err
			}
			continue
		}
		key, err := readKey(path)
		if err != nil {
			return nil, err
		}
		if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	switch {
	case sockets == 0:
		return func() (agent.ExtendedAgent, io.Closer, error) {
			return keys.(agent.ExtendedAgent), &nothing{}, nil
		}, nil
	case len(paths) > 1:
		return nil, errors.New("give one socket, or key files")
	}
	return d, nil
}

// nothing is the connection to an agent in this process.
type nothing struct{ _ byte } // each has an address of its own

func (*nothing) Close() error { return nil }

func readKey(path string) (any, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("%s has a passphrase: load it into an agent (ssh-add) and give that one's socket", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is neither a private key nor a socket: %w", path, err)
	}
	return key, nil
}

// socketDialer holds the socket by a descriptor: a build in place moves what it
// is mounted in.
func socketDialer(path string) (dialer, error) {
	f, err := os.OpenFile(path, openPath, 0)
	if err != nil {
		return nil, err
	}
	at := fdPath(f)
	return func() (agent.ExtendedAgent, io.Closer, error) {
		conn, err := net.Dial("unix", at)
		// The descriptor lives as long as the dialer.
		_ = f.Fd()
		if err != nil {
			return nil, nil, fmt.Errorf("asking the agent at %s: %w", path, errors.Unwrap(err))
		}
		return agent.NewClient(conn), conn, nil
	}, nil
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// Has reports whether there is an agent of that name.
func (a *Agents) Has(id string) bool { return a != nil && a.byID[id] != nil }

// Agent connects to an agent. It can be used until the closer is closed.
func (a *Agents) Agent(id string) (agent.Agent, io.Closer, error) {
	if !a.Has(id) {
		return nil, nil, fmt.Errorf("there is no ssh agent %q: add --ssh %s", id, id)
	}
	conn, closer, err := a.byID[id]()
	if err != nil {
		return nil, nil, err
	}
	return readOnly{conn}, closer, nil
}

// Serve answers for an agent at a new socket in the existing directory dir. stop
// ends that, connections included.
func (a *Agents) Serve(id, dir string) (socket string, stop func() error, err error) {
	if !a.Has(id) {
		return "", nil, fmt.Errorf("there is no ssh agent %q: add --ssh %s", id, id)
	}
	// The address of a socket is short, the directory's path may not be.
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	defer d.Close()
	const name = "agent"
	l, err := net.Listen("unix", fdPath(d)+"/"+name)
	if err != nil {
		return "", nil, fmt.Errorf("serving ssh agent %q: %w", id, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	s := &server{listener: l, dial: a.byID[id], open: map[io.Closer]bool{}}
	s.running.Go(s.run)
	return filepath.Join(dir, name), s.stop, nil
}
