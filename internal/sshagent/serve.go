package sshagent

import (
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// openPath opens a socket's file without connecting to it.
const openPath = unix.O_PATH | unix.O_CLOEXEC

// server answers connections to one socket.
type server struct {
	listener net.Listener
	dial     dialer
	running  sync.WaitGroup

	mu sync.Mutex
	// open are the connections of clients, and to the agent.
	open    map[io.Closer]bool
	stopped bool
}

func (s *server) run() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // stopped
		}
		if !s.keep(conn) {
			return
		}
		s.running.Go(func() { s.answer(conn) })
	}
}

// keep remembers a connection, so that stop ends it.
func (s *server) keep(conn io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = conn.Close()
		return false
	}
	s.open[conn] = true
	return true
}

func (s *server) drop(conn io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, conn)
	_ = conn.Close()
}

// answer serves one connection. An agent that is gone ends it, which is what a
// client of that agent would see.
func (s *server) answer(conn net.Conn) {
	defer s.drop(conn)
	to, up, err := s.dial()
	if err != nil {
		return
	}
	// An agent that asks its user does not answer until then: stop cannot wait.
	if !s.keep(up) {
		return
	}
	defer s.drop(up)
	_ = agent.ServeAgent(readOnly{to}, conn)
}

func (s *server) stop() error {
	s.mu.Lock()
	s.stopped = true
	for conn := range s.open {
		_ = conn.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.running.Wait()
	return err
}

// readOnly is an agent that nobody can change.
type readOnly struct{ agent.ExtendedAgent }

var errReadOnly = errors.New("a build may use the keys of this agent, not change them")

func (readOnly) Add(agent.AddedKey) error                 { return errReadOnly }
func (readOnly) Remove(ssh.PublicKey) error               { return errReadOnly }
func (readOnly) RemoveAll() error                         { return errReadOnly }
func (readOnly) Lock([]byte) error                        { return errReadOnly }
func (readOnly) Unlock([]byte) error                      { return errReadOnly }
func (readOnly) Extension(string, []byte) ([]byte, error) { return nil, errReadOnly }
