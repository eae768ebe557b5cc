// Package job is what a build that runs elsewhere is told, and what it answers. A
// build of one platform travels as a Request, in an argument of its pod, with a
// Secret beside it when there is something to hide; a Result comes back in the
// pod's termination message.
//
// It must not know what runs the build, nor how.
package job

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/ci"
)

// SecretDir is where the pod has the Secret of a payload, a file for each key.
const SecretDir = "/kaniko/job"

// Directories in the working directory of the build, to which all paths are relative
// that a Request has. FilesDir has files of the Request, SecretsDir is SecretDir.
const (
	FilesDir   = "files"
	SecretsDir = "secrets"
)

// Request is what to build, for one platform. It holds no secret: whoever may look
// at pods can read their arguments.
type Request struct {
	// Options name files by paths in the working directory, and contexts in the
	// registry or elsewhere.
	Options build.Options
	// Files are by their path in the working directory.
	Files map[string][]byte `json:",omitempty"`
	// Hidden are the contexts, and the Dockerfile, whose location is a secret: the
	// file in SecretsDir that has it, by ContextLocation, DockerfileLocation or
	// NamedLocation and the name of the context.
	Hidden map[string]string `json:",omitempty"`
	// Variables are those of the environment that are a secret: the file in
	// SecretsDir that has the value, by the variable's name.
	Variables map[string]string `json:",omitempty"`
	// DockerfileName is what the Dockerfile is called in messages; empty for its
	// path.
	DockerfileName string `json:",omitempty"`
	// Run is that of the record: a pod has neither the variables of
	// the CI system nor the repository.
	Run ci.Run
}

// Keys of Request.Hidden.
const (
	ContextLocation    = "context"
	DockerfileLocation = "dockerfile"
	NamedLocation      = "context:"
)

// Payload is all that a pod is given. Secret is the data of a Secret that is
// mounted at SecretDir; empty means that there is none.
type Payload struct {
	Request Request
	Secret  map[string][]byte
}

// version begins an encoded Request. Another version's options would be
// misunderstood, or lost.
const version = "1"

// maxArgument is what Linux takes as one argument of a program, MAX_ARG_STRLEN,
// less the name of the flag and the NUL, in bytes.
const maxArgument = 128<<10 - 64

// maxRequest limits what Decode unpacks, in bytes.
const maxRequest = 64 << 20

// Encode makes one word of a request, which equal requests share.
func (r Request) Encode() (string, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encoding the build's options: %w", err)
	}
	s, err := encode(data)
	if err != nil {
		return "", err
	}
	if len(s) > maxArgument {
		return "", &TooLargeError{Size: len(s)}
	}
	return s, nil
}

func encode(data []byte) (string, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return "", err
	}
	defer z.Close()
	return version + "." + base64.RawURLEncoding.EncodeToString(z.EncodeAll(data, nil)), nil
}

// TooLargeError is a request that no argument can hold.
type TooLargeError struct{ Size int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the build's options take %d KiB, compressed, and the argument of a pod holds %d: keep the Dockerfile in the context, give large build arguments as files of the context, and as --registry-certificate just the authority of that registry", (e.Size+1023)>>10, maxArgument>>10)
}

// Decode is the reverse of Encode.
func Decode(s string) (Request, error) {
	var r Request
	of, rest, ok := strings.Cut(s, ".")
	if _, err := strconv.Atoi(of); !ok || err != nil {
		return r, errors.New("the request is not one: give the argument whole, as the driver made it")
	}
	if of != version {
		return r, fmt.Errorf("the request is of version %s, and this program reads version %s: use the same release of kaniko-multiarch here and in the pod's image", of, version)
	}
	compressed, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil {
		return r, fmt.Errorf("decoding the request: %w: give the argument whole, as the driver made it", err)
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRequest))
	if err != nil {
		return r, err
	}
	defer z.Close()
	data, err := z.DecodeAll(compressed, nil)
	if err != nil {
		return r, fmt.Errorf("decoding the request: %w: give the argument whole, as the driver made it", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	// An option that this program does not know must not be lost.
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("decoding the request: %w: use the same release of kaniko-multiarch here and in the pod's image", err)
	}
	return r, nil
}
