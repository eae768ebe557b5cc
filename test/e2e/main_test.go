// Package e2e runs the built program as a user would: against a real registry,
// with real base images, real emulation and a real BuildKit to compare with.
// test/with-services.sh provides them; a test whose service is absent skips.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

var (
	// binary is the program under test.
	binary string
	// sharedState is for tests that do not look at the state: what the Go
	// compiler leaves in its cache mount is worth a minute.
	sharedState string
)

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "kma-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// Ordinary users run it, too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	binary = filepath.Join(dir, "kaniko-multiarch")
	sharedState = filepath.Join(dir, "state")
	cmd := exec.Command("go", "build", "-o", binary, "../..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// service returns a variable of test/with-services.sh, or skips the test.
func service(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Skipf("%s is not set: run `make test` as root on Debian, which starts the service", name)
	}
	return v
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlayfs")
	}
}

// result is what a run of the program left.
type result struct {
	code           int
	stdout, stderr string
}

// command is a run to be started: the program with its own state directory and
// nothing of our environment but PATH.
func command(t *testing.T, ctx context.Context, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + os.TempDir()}, env...)
	return cmd
}

func run(t *testing.T, args ...string) result {
	t.Helper()
	return runWith(t, nil, args...)
}

func runWith(t *testing.T, env []string, args ...string) result {
	t.Helper()
	return finished(t, command(t, t.Context(), env, args...))
}

// finished runs a command to its end, and returns what it left.
func finished(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok runs the program and fails the test when it fails.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := run(t, args...)
	assert.Equal(t, r.code, 0, "%s\n%s", strings.Join(args, " "), r.stderr)
	return strings.TrimSpace(r.stdout)
}

// tool runs another program and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: run `make test` as root on Debian", name)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	assert.NilError(t, err, "%s %s\n%s%s", name, strings.Join(args, " "), out, stderr.String())
	return string(out)
}

// contextDir writes files, "Dockerfile" among them, and returns the directory.
func contextDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		assert.NilError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	return dir
}

// helloContexts are the named contexts that stand for the example's public base
// images.
func helloContexts(bases string) []string {
	return []string{
		"--build-context", "golang:1.26=docker-image://" + bases + "/golang:1.26",
		"--build-context", "debian:12=docker-image://" + bases + "/debian:12",
	}
}

// platforms are those that steps can run on here.
func platforms(t *testing.T) string {
	t.Helper()
	both := []string{"linux/amd64", "linux/arm64"}
	emulated := strings.Split(service(t, "KMA_TEST_EMULATED"), ",")
	if !slices.Contains(emulated, "linux/arm64") && !slices.Contains(emulated, "linux/amd64") {
		t.Skip("neither linux/arm64 nor linux/amd64 is emulated here")
	}
	return strings.Join(both, ",")
}

const hello = "../../examples/hello"

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	assert.NilError(t, err)
	return path
}

// sameDay is for builds that are compared: useradd writes down the day. Near
// midnight it waits for the next one.
func sameDay(t *testing.T) {
	t.Helper()
	now := time.Now().UTC()
	if left := now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now); left < 5*time.Minute {
		t.Logf("waiting %s for the day to end", left)
		time.Sleep(left)
	}
}
