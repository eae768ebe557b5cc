package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// sshContext is a context with a Dockerfile of the steps, a private key, and a
// program that lists the keys of an agent.
func sshContext(t *testing.T, steps string) string {
	t.Helper()
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nCOPY --chmod=755 agentlist /bin/\n" + steps})
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "agentlist"), "../agentlist")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, string(out))
	_, key, err := ed25519.GenerateKey(rand.Reader)
	assert.NilError(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "key"), pem.EncodeToMemory(block), 0o600))
	return dir
}

const sshSteps = `RUN --mount=type=ssh,required=true agentlist > /keys && [ "$SSH_AUTH_SOCK" = /run/buildkit/ssh_agent.0 ]
RUN --mount=type=ssh,target=/tmp/x/sock,uid=1000,gid=7,mode=0640,id=other agentlist /tmp/x/sock >> /keys && ls -ln /tmp/x/sock
RUN --mount=type=ssh,id=nobodys true
USER 1000:7
RUN --mount=type=ssh,uid=1000 agentlist > /tmp/keys
USER 0
RUN [ ! -e /run/buildkit ] && [ ! -e /tmp/x ] && [ "$(wc -l < /keys)" = 2 ] && [ "$(cat /tmp/keys)" = ssh-ed25519 ]
`

func TestSSH_mount(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := sshContext(t, sshSteps)
	key := filepath.Join(dir, "key")
	r := run(t, "build", "--context", dir, "--no-push", "--state-dir", t.TempDir(), "--progress", "plain", "--ssh", "default="+key, "--ssh", "other="+key)
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Contains(r.stderr, "srw-r-----"))

	r = run(t, "build", "--context", dir, "--no-push", "--state-dir", t.TempDir())
	assert.Check(t, is.Equal(r.code, 2), r.stderr)
}

func TestSSH_mount_in_place(t *testing.T) {
	t.Parallel()
	needRoot(t)
	service(t, "KMA_TEST_DOCKER")
	dir := sshContext(t, sshSteps)
	r := inContainer(t, []string{"-v", dir + ":/workspace"}, "--context=/workspace", "--no-push", "--ssh", "default=/workspace/key", "--ssh", "other=/workspace/key")
	assert.Check(t, is.Equal(r.code, 0), r.stderr)
}

func TestSSH_missing(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN --mount=type=ssh,required=true,id=a true\n"})
	r := run(t, "build", "--context", dir, "--no-push", "--state-dir", t.TempDir())
	assert.Check(t, is.Equal(r.code, 2), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "Dockerfile:2"))
	assert.Check(t, is.Contains(r.stderr, "--ssh a"))
}

// What the flags ask for is what a step finds.
func TestStep_flags(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + `/busybox:1
RUN [ "$(ls /sys/class/net)" = lo ]
RUN --network=host true
RUN [ "$(ulimit -n)" = 123 ] && [ "$(ulimit -Hn)" = 456 ]
RUN df -k /dev/shm | grep -q ' 7168 '
RUN grep -E '^192.0.2.1[[:space:]]+four$' /etc/hosts && grep -E '^2001:db8::1[[:space:]]+six$' /etc/hosts
RUN --security=insecure mkdir -p /m && mount -t tmpfs none /m
`})
	flags := []string{"build", "--context", dir, "--no-push", "--state-dir", t.TempDir(), "--progress", "plain",
		"--network", "none", "--ulimit", "nofile=123:456", "--shm-size", "7m", "--add-host", "four:192.0.2.1", "--add-host", "six=[2001:db8::1]"}
	r := run(t, flags...)
	assert.Check(t, is.Equal(r.code, 3), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "Dockerfile:7: RUN --security=insecure is not allowed: add --allow security.insecure"))
	r = run(t, append(flags, "--allow", "security.insecure,network.host")...)
	assert.Check(t, is.Equal(r.code, 0), r.stderr)
}
