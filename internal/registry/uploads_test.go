package registry

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// uploads is a registry of one blob that keeps what it got of a broken upload.
type uploads struct {
	// fault may answer a request itself and then says true.
	fault func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool

	mu       sync.Mutex
	session  int
	got      []byte
	blob     []byte
	requests []string
	counts   map[string]int
}

func (u *uploads) log() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.requests, " ")
}

func (u *uploads) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/v2/" {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts == nil {
		u.counts = map[string]int{}
	}
	u.counts[req.Method]++
	what := req.Method
	if r := req.Header.Get("Content-Range"); r != "" {
		what += "[" + r + "]"
	}
	u.requests = append(u.requests, what)
	if u.fault != nil && u.fault(u, w, req, u.counts[req.Method]) {
		return
	}
	u.answer(w, req)
}

func (u *uploads) answer(w http.ResponseWriter, req *http.Request) {
	id := fmt.Sprintf("/v2/acme/app/blobs/uploads/%d", u.session)
	switch {
	case req.Method == http.MethodHead:
		if u.blob == nil {
			w.WriteHeader(404)
		}
		return
	case req.Method == http.MethodPost:
		u.session++
		u.got = nil
		u.accepted(w, "")
		return
	case req.URL.Path != id || req.URL.Query().Get("_state") != "a b+c/=":
		w.WriteHeader(404)
		fmt.Fprint(w, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"upload unknown"}]}`)
		return
	}
	switch req.Method {
	case http.MethodDelete:
		u.session++
		w.WriteHeader(204)
	case http.MethodGet:
		u.accepted(w, fmt.Sprintf("0-%d", max(len(u.got)-1, 0)))
	case http.MethodPatch:
		if r := req.Header.Get("Content-Range"); r != "" && !strings.HasPrefix(r, fmt.Sprintf("%d-", len(u.got))) {
			w.WriteHeader(416)
			return
		}
		data, err := io.ReadAll(req.Body)
		u.got = append(u.got, data...)
		if err == nil {
			u.accepted(w, fmt.Sprintf("0-%d", max(len(u.got)-1, 0)))
		}
	case http.MethodPut:
		data, _ := io.ReadAll(req.Body)
		u.got = append(u.got, data...)
		if want := req.URL.Query().Get("digest"); digest.FromBytes(u.got).String() != want {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}`)
			u.session++
			return
		}
		u.blob = u.got
		u.session++
		w.WriteHeader(201)
	}
}

// accepted gives a relative location with a query that must come back as it is.
func (u *uploads) accepted(w http.ResponseWriter, r string) {
	w.Header().Set("Location", fmt.Sprintf("/v2/acme/app/blobs/uploads/%d?_state=a%%20b%%2Bc/%%3D", u.session))
	if r != "" {
		w.Header().Set("Range", r)
	}
	w.WriteHeader(202)
}

// take reads a part of the body and keeps it.
func (u *uploads) take(req *http.Request, n int) {
	part := make([]byte, n)
	io.ReadFull(req.Body, part)
	u.got = append(u.got, part...)
}

func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		conn.Close()
	}
}
