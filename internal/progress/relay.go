package progress

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Relay shows a build that runs elsewhere, from the events that JSON prints there,
// a line at a time. Its vertices become others' neighbours: their names begin with
// where they run. It is used by one goroutine.
type Relay struct {
	to         Reporter
	name, salt string
	// running are vertices that have started, in order.
	running []digest.Digest
	ids     map[string]digest.Digest
	// plain is the vertex of lines that are no events; held is the last of them.
	plain digest.Digest
	held  *string
}

// NewRelay makes a relay. name is shown in front of every vertex; salt keeps
// vertices of equal builds apart.
func NewRelay(to Reporter, name, salt string) *Relay {
	return &Relay{to: to, name: name, salt: salt, ids: map[string]digest.Digest{}}
}

// relayed is any event.
type relayed struct {
	jsonHead
	Name     string
	Inputs   []string
	Stream   int
	Text     string
	Data     []byte
	Current  int64
	Total    int64
	Done     bool
	Cached   bool
	Error    string
	Canceled bool
	File     string
	Line     int
	URL      string
	Detail   string
}

// Line takes a line without its end.
func (r *Relay) Line(line []byte) {
	var e relayed
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &e) != nil || e.Event == "" {
		r.other(line)
		return
	}
	id := r.id(e.Vertex)
	switch e.Event {
	case "plan":
		v := Vertex{ID: id, Name: r.title(e.Name)}
		for _, in := range e.Inputs {
			v.Inputs = append(v.Inputs, r.id(in))
		}
		r.to.Plan(v)
	case "start":
		r.running = append(r.running, id)
		r.to.Start(id)
	case "log":
		if e.Data == nil {
			e.Data = []byte(e.Text)
		}
		_, _ = r.to.Log(id, e.Stream).Write(e.Data)
	case "status":
		r.to.Status(id, e.Name, e.Current, e.Total, e.Done)
	case "done":
		r.end(id)
		r.to.Done(id, e.Cached, failure(e))
	case "warning":
		r.to.Warn(Warning{File: e.File, Line: e.Line, Text: e.Text, URL: e.URL, Detail: e.Detail})
	}
	// The rows of the table come with the result.
}

// failure is the error of a vertex; a cancelled one stays that.
func failure(e relayed) error {
	switch {
	case e.Canceled:
		return context.Canceled
	case e.Error != "":
		return errors.New(e.Error)
	}
	return nil
}

// other shows a line that is no event: what was printed before or after the build,
// or by another program. The last one is held back, since it may be the error that
// is told anyway.
func (r *Relay) other(line []byte) {
	r.release()
	text := string(line)
	r.held = &text
}

func (r *Relay) release() {
	if r.held == nil {
		return
	}
	if r.plain == "" {
		r.plain = r.id("output")
		r.to.Plan(Vertex{ID: r.plain, Name: r.title("output")})
		r.to.Start(r.plain)
	}
	_, _ = io.WriteString(r.to.Log(r.plain, 2), *r.held+"\n")
	r.held = nil
}

// Close ends what the build has not ended: err cut it off.
func (r *Relay) Close(err error) {
	if r.held != nil && (err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(*r.held, "error: "))) {
		r.release()
	}
	for _, id := range r.running {
		if err != nil {
			err = context.Canceled // it is told where it belongs
		}
		r.to.Done(id, false, err)
	}
	r.running = nil
	if r.plain != "" {
		r.to.Done(r.plain, false, nil)
	}
}

func (r *Relay) end(id digest.Digest) {
	r.running = slices.DeleteFunc(r.running, func(other digest.Digest) bool { return other == id })
}

func (r *Relay) id(vertex string) digest.Digest {
	if vertex == "" {
		return ""
	}
	id, ok := r.ids[vertex]
	if !ok {
		id = digest.FromString(r.salt + "\x00" + vertex)
		r.ids[vertex] = id
	}
	return id
}

// title is "[linux/arm64 2/3] RUN x" for "[2/3] RUN x".
func (r *Relay) title(name string) string {
	if rest, ok := strings.CutPrefix(name, "["); ok {
		if strings.HasPrefix(rest, r.name) {
			return name
		}
		return "[" + r.name + " " + rest
	}
	return "[" + r.name + "] " + name
}
