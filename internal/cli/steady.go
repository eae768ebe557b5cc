package cli

import (
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"time"
)

// steady makes this process independent of "/", which belongs to a step while
// that is in place. Go's libraries read certificates and the time zone when they
// are first asked for; temporary files go where nobody moves them.
func steady(stateDir string) error {
	fmt.Fprint(io.Discard, time.Now()) // reads the time zone
	// Without any, the first connection says so.
	_, _ = x509.SystemCertPool()
	return os.Setenv("TMPDIR", stateDir)
}
