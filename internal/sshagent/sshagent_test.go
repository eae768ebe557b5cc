package sshagent

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// keyFile writes a private key and returns its path and public half.
func keyFile(t *testing.T, passphrase string) (string, ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	assert.NilError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	assert.NilError(t, err)
	name := filepath.Join(t.TempDir(), "key")
	assert.NilError(t, os.WriteFile(name, pem.EncodeToMemory(block), 0o600))
	key, err := ssh.NewPublicKey(public)
	assert.NilError(t, err)
	return name, key
}

func noEnv(string) string { return "" }

func client(t *testing.T, a *Agents, id string) agent.ExtendedAgent {
	t.Helper()
	// A path that is too long for the address of a socket.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	assert.NilError(t, os.Mkdir(dir, 0o700))
	socket, stop, err := a.Serve(id, dir)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, stop()) })
	f, err := os.OpenFile(socket, openPath, 0)
	assert.NilError(t, err)
	t.Cleanup(func() { f.Close() })
	conn, err := net.Dial("unix", fdPath(f))
	assert.NilError(t, err)
	t.Cleanup(func() { conn.Close() })
	return agent.NewClient(conn)
}

func TestServe_keys_sign_and_stay(t *testing.T) {
	t.Parallel()
	one, public := keyFile(t, "")
	two, _ := keyFile(t, "")
	a, err := Open([]Source{{ID: "x", Paths: []string{one, two}}}, noEnv)
	assert.NilError(t, err)
	c := client(t, a, "x")
	keys, err := c.List()
	assert.NilError(t, err)
	assert.Check(t, is.Len(keys, 2))
	sig, err := c.Sign(public, []byte("text"))
	assert.NilError(t, err)
	assert.NilError(t, public.Verify([]byte("text"), sig))
	assert.Check(t, c.RemoveAll() != nil)
	keys, err = c.List()
	assert.NilError(t, err)
	assert.Check(t, is.Len(keys, 2))
}

// A running agent is passed on, wherever its socket is moved to.
func TestServe_socket(t *testing.T) {
	t.Parallel()
	file, public := keyFile(t, "")
	first, err := Open([]Source{{ID: "x", Paths: []string{file}}}, noEnv)
	assert.NilError(t, err)
	dir, err := os.MkdirTemp("", "agent")
	assert.NilError(t, err)
	defer os.RemoveAll(dir)
	socket, stop, err := first.Serve("x", dir)
	assert.NilError(t, err)
	defer stop()
	second, err := Open([]Source{{ID: "default"}}, func(string) string { return socket })
	assert.NilError(t, err)
	assert.NilError(t, os.Rename(socket, socket+".moved"))
	c := client(t, second, "default")
	sig, err := c.SignWithFlags(public, []byte("text"), 0)
	assert.NilError(t, err)
	assert.NilError(t, public.Verify([]byte("text"), sig))
}

// An agent that waits for its user keeps no build from ending.
func TestServe_stops_while_an_agent_waits(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "agent")
	assert.NilError(t, err)
	defer os.RemoveAll(dir)
	silent, err := net.Listen("unix", filepath.Join(dir, "silent"))
	assert.NilError(t, err)
	defer silent.Close()
	a, err := Open([]Source{{ID: "x", Paths: []string{filepath.Join(dir, "silent")}}}, noEnv)
	assert.NilError(t, err)
	socket, stop, err := a.Serve("x", dir)
	assert.NilError(t, err)
	conn, err := net.Dial("unix", socket)
	assert.NilError(t, err)
	defer conn.Close()
	asked := make(chan error, 1)
	go func() {
		_, err := agent.NewClient(conn).List()
		asked <- err
	}()
	up, err := silent.Accept()
	assert.NilError(t, err)
	defer up.Close()
	_, err = up.Read(make([]byte, 5)) // the question, which has no answer
	assert.NilError(t, err)
	assert.NilError(t, stop())
	assert.Check(t, <-asked != nil)
}

func TestOpen_refuses(t *testing.T) {
	t.Parallel()
	locked, _ := keyFile(t, "secret")
	text := filepath.Join(t.TempDir(), "text")
	assert.NilError(t, os.WriteFile(text, []byte("no key"), 0o600))
	for _, tc := range []struct {
		name    string
		sources []Source
		want    string
	}{
		{"no_agent", []Source{{ID: "default"}}, "SSH_AUTH_SOCK is not set"},
		{"missing", []Source{{ID: "x", Paths: []string{"/does/not/exist"}}}, "no such file"},
		{"passphrase", []Source{{ID: "x", Paths: []string{locked}}}, "has a passphrase"},
		{"no_key", []Source{{ID: "x", Paths: []string{text}}}, "neither a private key nor a socket"},
		{"twice", []Source{{ID: "x", Paths: []string{text}}, {ID: "x"}}, "neither"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(tc.sources, noEnv)
			assert.ErrorContains(t, err, tc.want)
		})
	}
	a, err := Open(nil, noEnv)
	assert.NilError(t, err)
	assert.Check(t, !a.Has("x"))
	_, _, err = a.Serve("x", t.TempDir())
	assert.ErrorContains(t, err, "add --ssh x")
}
