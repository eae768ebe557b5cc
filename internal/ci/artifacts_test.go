package ci

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// artifactStore is GitHub's, as far as the client goes.
type artifactStore struct {
	mu     sync.Mutex
	url    string
	blocks map[string][]byte
	kept   map[string][]byte
	// snake makes it answer with names as in the service's definition.
	snake bool
	// failures is how often it answers with an error first.
	failures int
}

const runtimeScope = "Actions.Example Actions.Results:run-1:job-2"

func newArtifactStore(t *testing.T, s *artifactStore) func(string) string {
	t.Helper()
	s.blocks, s.kept = map[string][]byte{}, map[string][]byte{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	token := runtimeToken(runtimeScope)
	return func(name string) string {
		return map[string]string{"ACTIONS_RESULTS_URL": server.URL + "/", "ACTIONS_RUNTIME_TOKEN": token}[name]
	}
}

func runtimeToken(scope string) string {
	claims, _ := json.Marshal(map[string]string{"scp": scope})
	return "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
}

func (s *artifactStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	if s.failures > 0 {
		s.failures--
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	name := r.URL.Query().Get("name")
	switch method := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; {
	case method == "blob" && r.Method == http.MethodGet:
		w.Write(s.kept[name])
	case method == "blob" && r.URL.Query().Get("comp") == "block":
		s.blocks[r.URL.Query().Get("blockid")] = body
		w.WriteHeader(http.StatusCreated)
	case method == "blob" && r.URL.Query().Get("comp") == "blocklist":
		for id, data := range s.blocks {
			if strings.Contains(string(body), "<Latest>"+id+"</Latest>") {
				s.kept[name] = data
			}
		}
		w.WriteHeader(http.StatusCreated)
	case r.Header.Get("Authorization") != "Bearer "+runtimeToken(runtimeScope):
		http.Error(w, "who are you?", http.StatusUnauthorized)
	default:
		s.service(w, method, body)
	}
}

func (s *artifactStore) service(w http.ResponseWriter, method string, body []byte) {
	var request struct {
		Name string
		Run  string `json:"workflow_run_backend_id"`
		Job  string `json:"workflow_job_run_backend_id"`
		Size string
	}
	if json.Unmarshal(body, &request) != nil || request.Run != "run-1" || request.Job == "" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	answer := map[string]any{"ok": true}
	key := func(snake, camel string) string {
		if s.snake {
			return snake
		}
		return camel
	}
	switch method {
	case "CreateArtifact":
		if _, ok := s.kept[request.Name]; ok {
			http.Error(w, `{"code":"already_exists"}`, http.StatusConflict)
			return
		}
		answer[key("signed_upload_url", "signedUploadUrl")] = s.url + "/blob?sig=s&name=" + request.Name
	case "FinalizeArtifact":
		answer["ok"] = len(s.kept[request.Name]) > 0
	case "ListArtifacts":
		var list []any
		for name := range s.kept {
			list = append(list, map[string]any{"name": name, key("workflow_run_backend_id", "workflowRunBackendId"): "run-1", key("workflow_job_run_backend_id", "workflowJobRunBackendId"): "job-of-" + name})
		}
		answer["artifacts"] = list
	case "GetSignedArtifactURL":
		if request.Job != "job-of-"+request.Name {
			http.Error(w, "not of this job", http.StatusNotFound)
			return
		}
		answer[key("signed_url", "signedUrl")] = s.url + "/blob?sig=s&name=" + request.Name
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		store *artifactStore
	}{
		{"camel_case", &artifactStore{}},
		{"snake_case", &artifactStore{snake: true}},
		{"tries_again", &artifactStore{failures: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, err := OpenArtifacts(newArtifactStore(t, tc.store))
			assert.NilError(t, err)
			files := map[string][]byte{"a.json": []byte("{}"), "a.digest": []byte("x\n")}
			assert.NilError(t, a.Upload(t.Context(), "kma-a-linux-amd64", files))
			assert.NilError(t, a.Upload(t.Context(), "kma-b-linux-amd64", map[string][]byte{"b.json": []byte("b")}))
			assert.ErrorIs(t, a.Upload(t.Context(), "kma-a-linux-amd64", files), ErrArtifactExists)
			got, err := a.Download(t.Context(), "kma-a-")
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(got, map[string]map[string][]byte{"kma-a-linux-amd64": files}))
			all, err := a.Download(t.Context(), "kma-")
			assert.NilError(t, err)
			assert.Check(t, is.Len(all, 2))
		})
	}
}

func TestOpenArtifacts_without(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, url, token string }{
		{"nothing", "", ""},
		{"enterprise_server", "", runtimeToken(runtimeScope)},
		{"no_token", "https://results.example", "x"},
		{"other_scope", "https://results.example", runtimeToken("Actions.Example")},
		{"not_base64", "https://results.example", "a.!.b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := OpenArtifacts(func(name string) string {
				return map[string]string{"ACTIONS_RESULTS_URL": tc.url, "ACTIONS_RUNTIME_TOKEN": tc.token}[name]
			})
			assert.ErrorIs(t, err, ErrNoArtifacts)
		})
	}
}

// A URL of the store is as good as a password.
func TestArtifacts_errors_show_no_URL(t *testing.T) {
	t.Parallel()
	store := &artifactStore{}
	getenv := newArtifactStore(t, store)
	a, err := OpenArtifacts(getenv)
	assert.NilError(t, err)
	a.client = http.DefaultClient
	store.failures = 1
	err = a.Upload(t.Context(), "n", nil)
	assert.ErrorIs(t, err, ErrArtifacts)
	assert.Check(t, is.ErrorContains(err, "503"))
	err = a.put(t.Context(), "http://127.0.0.1:1/blob?sig=secret", "comp=block", nil)
	assert.ErrorIs(t, err, ErrArtifacts)
	assert.Check(t, !strings.Contains(err.Error(), "sig="), err.Error())
}
