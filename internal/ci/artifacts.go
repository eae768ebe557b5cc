package ci

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// ErrNoArtifacts is a job whose steps cannot reach the store of artifacts.
var ErrNoArtifacts = errors.New("this job has no store for artifacts")

// ErrArtifactExists is an artifact whose name another job of the run has used.
var ErrArtifactExists = errors.New("the run has an artifact of this name")

// ErrArtifacts is a store that does not do what it is asked.
var ErrArtifacts = errors.New("the store of artifacts")

// Artifacts are those of a run in GitHub Actions, in the store that
// actions/upload-artifact uses from its version 4 on. Only actions are given
// access to it, no other steps; GitHub Enterprise Server has none.
type Artifacts struct {
	client *http.Client
	base   string
	token  string
	// run and job are what the store calls them.
	run, job string
}

// OpenArtifacts finds the store. The error is an ErrNoArtifacts.
func OpenArtifacts(getenv func(string) string) (*Artifacts, error) {
	base, token := getenv("ACTIONS_RESULTS_URL"), getenv("ACTIONS_RUNTIME_TOKEN")
	if base == "" || token == "" {
		return nil, ErrNoArtifacts
	}
	run, job, err := backendIDs(token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoArtifacts, err)
	}
	retrying := retryablehttp.NewClient()
	retrying.Logger = nil
	retrying.HTTPClient.Timeout = time.Minute
	return &Artifacts{client: retrying.StandardClient(), base: strings.TrimSuffix(base, "/"), token: token, run: run, job: job}, nil
}

// backendIDs reads the scope Actions.Results:RUN:JOB of the job's token.
func backendIDs(token string) (run, job string, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", "", errors.New("ACTIONS_RUNTIME_TOKEN is no token of GitHub's")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return "", "", errors.New("ACTIONS_RUNTIME_TOKEN is no token of GitHub's")
	}
	var claims struct {
		Scopes string `json:"scp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", "", errors.New("ACTIONS_RUNTIME_TOKEN is no token of GitHub's")
	}
	for scope := range strings.FieldsSeq(claims.Scopes) {
		if f := strings.Split(scope, ":"); len(f) == 3 && f[0] == "Actions.Results" {
			return f[1], f[2], nil
		}
	}
	return "", "", errors.New("ACTIONS_RUNTIME_TOKEN does not allow artifacts")
}

// Upload stores files under a name, which is then taken for good.
func (a *Artifacts) Upload(ctx context.Context, name string, files map[string][]byte) error {
	content, err := archive(files)
	if err != nil {
		return err
	}
	var created struct {
		OK  bool
		URL string `json:"signeduploadurl"`
	}
	if err := a.call(ctx, "CreateArtifact", map[string]any{"name": name, "version": 4}, &created); err != nil {
		return fmt.Errorf("artifact %s: %w", name, err)
	}
	if !created.OK || created.URL == "" {
		return fmt.Errorf("artifact %s: %w does not take it", name, ErrArtifacts)
	}
	id := base64.StdEncoding.EncodeToString([]byte("block-0000"))
	list := `<?xml version="1.0" encoding="utf-8"?><BlockList><Latest>` + id + `</Latest></BlockList>`
	for _, part := range []struct {
		query string
		body  []byte
	}{{"comp=block&blockid=" + id, content}, {"comp=blocklist", []byte(list)}} {
		if err := a.put(ctx, created.URL, part.query, part.body); err != nil {
			return fmt.Errorf("artifact %s: %w", name, err)
		}
	}
	var done struct{ OK bool }
	sum := sha256.Sum256(content)
	err = a.call(ctx, "FinalizeArtifact", map[string]any{
		"name": name, "size": strconv.Itoa(len(content)), "hash": fmt.Sprintf("sha256:%x", sum),
	}, &done)
	if err == nil && !done.OK {
		err = fmt.Errorf("%w does not keep it", ErrArtifacts)
	}
	if err != nil {
		return fmt.Errorf("artifact %s: %w", name, err)
	}
	return nil
}

// maxArtifact is how many bytes of an artifact are read: records are small.
const maxArtifact = 8 << 20

// Download returns the files of all artifacts of the run whose names begin with
// prefix, by the names of the artifacts. Directories are left out.
func (a *Artifacts) Download(ctx context.Context, prefix string) (map[string]map[string][]byte, error) {
	var list struct {
		Artifacts []struct {
			Name string
			Run  string `json:"workflowrunbackendid"`
			Job  string `json:"workflowjobrunbackendid"`
		}
	}
	if err := a.call(ctx, "ListArtifacts", map[string]any{}, &list); err != nil {
		return nil, err
	}
	out := map[string]map[string][]byte{}
	for _, found := range list.Artifacts {
		if !strings.HasPrefix(found.Name, prefix) {
			continue
		}
		var signed struct {
			URL string `json:"signedurl"`
		}
		request := map[string]any{"name": found.Name}
		if found.Run != "" {
			request["workflow_run_backend_id"], request["workflow_job_run_backend_id"] = found.Run, found.Job
		}
		err := a.call(ctx, "GetSignedArtifactURL", request, &signed)
		if err == nil {
			out[found.Name], err = a.get(ctx, signed.URL)
		}
		if err != nil {
			return nil, fmt.Errorf("artifact %s: %w", found.Name, err)
		}
	}
	return out, nil
}

func archive(files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, data := range files {
		f, err := w.Create(name)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// call asks the store's service.
func (a *Artifacts) call(ctx context.Context, method string, request map[string]any, answer any) error {
	if _, ok := request["workflow_run_backend_id"]; !ok {
		request["workflow_run_backend_id"], request["workflow_job_run_backend_id"] = a.run, a.job
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base+"/twirp/github.actions.results.api.v1.ArtifactService/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Content-Type", "application/json")
	data, err := a.do(req, http.StatusOK)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if err := json.Unmarshal(plainKeys(data), answer); err != nil {
		return fmt.Errorf("%s: %w answers with no JSON", method, ErrArtifacts)
	}
	return nil
}

func (a *Artifacts) put(ctx context.Context, url, query string, body []byte) error {
	// Its signature is part of the query, so that stays as it is.
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url+sep+query, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w gives no address", ErrArtifacts)
	}
	_, err = a.do(req, http.StatusCreated)
	return err
}

func (a *Artifacts) get(ctx context.Context, url string) (map[string][]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("%w gives no address", ErrArtifacts)
	}
	data, err := a.do(req, http.StatusOK)
	if err != nil {
		return nil, err
	}
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, f := range r.File {
		if f.FileInfo().IsDir() {
			continue
		}
		content, err := f.Open()
		if err != nil {
			return nil, err
		}
		out[f.Name], err = io.ReadAll(io.LimitReader(content, maxArtifact))
		if err = errors.Join(err, content.Close()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// do never shows a URL: those of the store are signed.
func (a *Artifacts) do(req *http.Request, want int) ([]byte, error) {
	resp, err := a.client.Do(req)
	if err != nil {
		if cause := context.Cause(req.Context()); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("%w at %s cannot be reached", ErrArtifacts, req.URL.Host)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxArtifact))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w breaks off", ErrArtifacts)
	case resp.StatusCode == http.StatusConflict:
		return nil, ErrArtifactExists
	case resp.StatusCode != want:
		return nil, fmt.Errorf("%w answers with %s", ErrArtifacts, resp.Status)
	}
	return data, nil
}

// plainKeys makes somekey of some_key and someKey: the service may use either.
func plainKeys(data []byte) []byte {
	var v any
	if json.Unmarshal(data, &v) != nil {
		return data
	}
	out, err := json.Marshal(renamed(v))
	if err != nil {
		return data
	}
	return out
}

func renamed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			out[strings.ToLower(strings.ReplaceAll(key, "_", ""))] = renamed(value)
		}
		return out
	case []any:
		for i := range v {
			v[i] = renamed(v[i])
		}
	}
	return v
}
