package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/record"
)

// resultSchema is the version of a Result.
const resultSchema = "kaniko-multiarch.job/v1"

// MaxResult is what the kubelet takes as a termination message, in bytes.
const MaxResult = 4096

// ErrNoResult is a termination message that is none of ours: the build was killed
// before it could write one.
var ErrNoResult = errors.New("the pod left no result")

// Result is what a build answers. It holds no secret.
type Result struct {
	Schema string `json:"schema"`
	// Record is set when the image is built, and pushed if it was to be.
	Record *record.Record `json:"record,omitempty"`
	// Layers are those of the image.
	LayersReused int `json:"layersReused,omitempty"`
	LayersBuilt  int `json:"layersBuilt,omitempty"`
	// ImageSize is the sum of the compressed sizes of all layers, in bytes.
	ImageSize int64 `json:"imageSize,omitempty"`
	// ExitCode is that of build; StepCode that of the step that failed, if one
	// did.
	ExitCode int  `json:"exitCode"`
	StepCode *int `json:"stepCode,omitempty"`
	// Error says what went wrong, and what to do. It may have been shortened in the
	// middle.
	Error string `json:"error,omitempty"`
}

// Row is the line of the final table for the image of the record.
func (r Result) Row() progress.ImageRow {
	return progress.ImageRow{
		Platform: r.Record.Platform, Digest: r.Record.Digest.String(), Size: r.ImageSize, LayersReused: r.LayersReused, LayersBuilt: r.LayersBuilt,
		Time: time.Duration(r.Record.Seconds * float64(time.Second)), Emulated: r.Record.Emulated,
	}
}

// cut stands where an error was shortened.
const cut = "\n[...]\n"

// Encode makes a termination message. What does not fit is cut out of the error,
// whose beginning and end say most; at last, the record goes without annotations.
func (r Result) Encode() ([]byte, error) {
	r.Schema = resultSchema
	r.Error = strings.ToValidUTF8(r.Error, "\ufffd")
	data, err := r.marshal()
	text := r.Error
	for most := len(text); err == nil && len(data) > MaxResult && most > len(cut); {
		// An escaped character takes up to six bytes.
		most -= max(16, (len(data)-MaxResult)/6)
		r.Error = shorten(text, max(most, 0))
		data, err = r.marshal()
	}
	if err == nil && len(data) > MaxResult && r.Record != nil && len(r.Record.Annotations) > 0 {
		slim := *r.Record
		slim.Annotations = nil
		r.Record, r.Error = &slim, text
		return r.Encode()
	}
	if err == nil && len(data) > MaxResult {
		err = fmt.Errorf("the result takes %d bytes, and a pod's termination message holds %d: use shorter names for the image and the target", len(data), MaxResult)
	}
	return data, err
}

func (r Result) marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// shorten keeps about most bytes of a text: a third of them are its beginning.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	most -= len(cut)
	if most <= 0 {
		return ""
	}
	head, tail := most/3, len(text)-(most-most/3)
	for head > 0 && !utf8.RuneStart(text[head]) {
		head--
	}
	for tail < len(text) && !utf8.RuneStart(text[tail]) {
		tail++
	}
	return text[:head] + cut + text[tail:]
}

// ParseResult reads the termination message of a pod. One that is not whole is an
// ErrNoResult.
func ParseResult(message string) (Result, error) {
	var r Result
	if strings.TrimSpace(message) == "" {
		return r, ErrNoResult
	}
	if err := json.Unmarshal([]byte(message), &r); err != nil || r.Schema == "" {
		return Result{}, fmt.Errorf("%w: its last words are %q", ErrNoResult, shorten(strings.ToValidUTF8(message, ""), 300))
	}
	if r.Schema != resultSchema {
		return Result{}, fmt.Errorf("the pod's result is a %q, and this program reads %q: use the same release of kaniko-multiarch here and in the pod's image", r.Schema, resultSchema)
	}
	if r.Record == nil {
		return r, nil
	}
	if err := r.Record.Validate(); err != nil {
		return r, fmt.Errorf("the pod's result: %w", err)
	}
	return r, nil
}

// FailedError is a build elsewhere that failed, as its own Result tells.
type FailedError struct {
	Platform string
	Result   Result
}

func (e *FailedError) Error() string { return e.Platform + ": " + e.Result.Error }
