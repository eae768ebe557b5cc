package progress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
)

// stage is a display in a bubble with a clock of its own. Its steps are named
// by short words.
type stage struct {
	t *testing.T
	*Display
}

func vid(name string) digest.Digest { return digest.FromString(name) }

// wait lets time pass and everything be drawn. Callers keep off the multiples
// of tickEvery, so that the order of events never depends on the scheduler.
func (s *stage) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *stage) plan(names ...string) {
	for _, n := range names {
		s.Plan(Vertex{ID: vid(n), Name: "[build] " + n})
	}
}

func (s *stage) begin(names ...string) {
	s.plan(names...)
	for _, n := range names {
		s.Start(vid(n))
	}
}

func (s *stage) out(name, text string) { s.write(name, 1, text) }

func (s *stage) write(name string, stream int, text string) {
	n, err := io.WriteString(s.Log(vid(name), stream), text)
	assert.NilError(s.t, err)
	assert.Equal(s.t, n, len(text))
}

// perform runs a scenario and returns what was shown.
func perform(t *testing.T, o Options, scenario func(*stage)) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		o.Out = &out
		d, err := New(o)
		assert.NilError(t, err)
		scenario(&stage{t, d})
		assert.NilError(t, d.Close())
	})
	return out.String()
}

var errStep = errors.New("process \"/bin/sh -c make\" did not complete successfully:\nexit code: 2")

var scenarios = []struct {
	name   string
	redact []string
	play   func(*stage)
}{
	{name: "one_step", play: func(s *stage) {
		s.begin("RUN make")
		s.wait(123 * time.Millisecond)
		s.out("RUN make", "cc -c a.c\n\ncc -c b.c\n")
		s.wait(12 * time.Second)
		s.write("RUN make", 2, "a warning\r\nlast line without end")
		s.wait(101 * time.Millisecond)
		s.Done(vid("RUN make"), false, nil)
	}},
	{name: "cached", play: func(s *stage) {
		s.plan("FROM alpine", "RUN apk add make", "COPY . .")
		s.Done(vid("FROM alpine"), true, nil)
		s.Done(vid("RUN apk add make"), true, nil)
		s.wait(33 * time.Millisecond)
		s.Start(vid("COPY . ."))
		s.wait(1200 * time.Millisecond)
		s.Done(vid("COPY . ."), false, nil)
	}},
	{name: "parallel", play: func(s *stage) {
		s.begin("amd64", "arm64")
		s.wait(10 * time.Millisecond)
		for i := range 20 {
			s.out("amd64", fmt.Sprintf("amd64 %d\n", i))
			s.wait(333 * time.Millisecond)
			s.out("arm64", fmt.Sprintf("arm64 %d\n", i))
			s.wait(678 * time.Millisecond)
		}
		s.Done(vid("amd64"), false, nil)
		s.wait(20 * time.Millisecond)
		s.out("arm64", "finishing\n")
		s.Done(vid("arm64"), false, nil)
	}},
	{name: "quick_step_beside_a_slow_one", play: func(s *stage) {
		s.begin("slow")
		s.out("slow", "first\n")
		s.wait(110 * time.Millisecond)
		s.begin("quick")
		s.out("quick", "all of it\n")
		s.wait(20 * time.Millisecond)
		s.Done(vid("quick"), false, nil)
		s.out("slow", "second\n")
		s.wait(6 * time.Second)
		s.out("slow", "third\n")
		s.wait(101 * time.Millisecond)
		s.Done(vid("slow"), false, nil)
	}},
	{name: "failing_step", play: func(s *stage) {
		s.begin("RUN make", "RUN other")
		for i := range 25 {
			s.out("RUN make", fmt.Sprintf("line %d\n", i))
		}
		s.write("RUN make", 2, "make: *** [all] Error 2\n")
		s.wait(1500 * time.Millisecond)
		s.Done(vid("RUN make"), false, errStep)
		s.Done(vid("RUN other"), false, fmt.Errorf("running: %w", context.Canceled))
	}},
	{name: "partial_lines", play: func(s *stage) {
		s.begin("dots")
		for range 5 {
			s.out("dots", ".")
			s.wait(1400 * time.Millisecond)
		}
		s.write("dots", 2, "an error in between\n")
		s.wait(10 * time.Millisecond)
		s.out("dots", " ok\n")
		s.out("dots", strings.Repeat("0123456789", 830)+"\n")
		s.out("dots", "no end")
		s.wait(10 * time.Millisecond)
		s.Done(vid("dots"), false, nil)
	}},
	{name: "progress_bar", play: func(s *stage) {
		s.begin("RUN apt-get update", "RUN npm ci")
		for i := range 101 {
			s.out("RUN apt-get update", fmt.Sprintf("\rGet %d%%", i))
			s.out("RUN npm ci", fmt.Sprintf("install %d%%\r", i))
			s.wait(251 * time.Millisecond)
		}
		s.out("RUN apt-get update", "\nfetched\r\n")
		s.out("RUN npm ci", "\x1b[K\nadded 7\b\b 3 packages\n")
		s.Done(vid("RUN apt-get update"), false, nil)
		s.Done(vid("RUN npm ci"), false, nil)
	}},
	{name: "heartbeat", play: func(s *stage) {
		s.begin("silent", "silent too")
		s.wait(65*time.Second + 10*time.Millisecond)
		s.out("silent too", "something\n")
		s.wait(31 * time.Second)
		s.Done(vid("silent"), false, nil)
		s.wait(31 * time.Second)
		s.Done(vid("silent too"), false, nil)
	}},
	{name: "redaction", redact: []string{"hunter2", "-----BEGIN KEY-----\nMIIBOgIBAAJBAK\n}\n-----END KEY-----\n"}, play: func(s *stage) {
		s.plan("RUN login --password hunter2")
		s.begin("RUN login")
		s.out("RUN login", "password: hun")
		s.wait(1600 * time.Millisecond)
		s.out("RUN login", "ter")
		s.wait(1600 * time.Millisecond)
		s.out("RUN login", "2 and hunter and hun\x1b[31mter2\x1b[0m\n")
		s.write("RUN login", 2, "-----BEGIN KEY-----\nMIIBOgIB")
		s.wait(10 * time.Millisecond)
		s.write("RUN login", 2, "AAJBAK\n}\n-----END KEY-----\n{}\nkey: MIIBOgIBAAJBAK\nhunte")
		s.Status(vid("RUN login"), "hunter2", 1, 2, true)
		s.Warn(Warning{File: "Dockerfile", Line: 3, Text: "SecretsUsed: hunter2", Detail: "x hunter2"})
		s.wait(10 * time.Millisecond)
		s.Done(vid("RUN login"), false, errors.New("login with hunter2 failed"))
	}},
	{name: "warnings", play: func(s *stage) {
		for _, line := range []int{12, 3, 12} {
			s.Warn(Warning{File: "Dockerfile", Line: line, Text: "JSONArgsRecommended: JSON arguments recommended for CMD", URL: "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/", Detail: "why"})
		}
		s.Warn(Warning{Text: "the cache refused a write"})
		s.begin("CMD")
		s.Done(vid("CMD"), false, nil)
	}},
	{name: "transfers", play: func(s *stage) {
		s.begin("FROM alpine")
		for i := range 10 {
			s.Status(vid("FROM alpine"), "sha256:aaa", int64(i)*1_500_000, 15_000_000, false)
			s.wait(1101 * time.Millisecond)
		}
		s.Status(vid("FROM alpine"), "sha256:aaa", 15_000_000, 15_000_000, true)
		s.Status(vid("FROM alpine"), "sha256:bbb", 900, 0, true)
		s.Done(vid("FROM alpine"), false, nil)
	}},
	{name: "odd_bytes", play: func(s *stage) {
		s.begin("RUN odd")
		s.out("RUN odd", "caf\xe9 \xc3")
		s.out("RUN odd", "\xa9t\xc3\xa9 \xff bell\a nul\x00 \xc2\x9b title\x1b]0;x\a clear\x1b[2J\n")
		s.out("RUN odd", "\x1b[1;31mred\nstill red\x1b[m plain\n::error::fake\n")
		s.out("RUN odd", "lone \x1b]8;; link\n")
		s.Done(vid("RUN odd"), false, nil)
	}},
	{name: "disorder", play: func(s *stage) {
		s.out("unplanned", "hello\n")
		s.plan("unplanned")
		s.wait(10 * time.Millisecond)
		s.Done(vid("unplanned"), false, nil)
		s.Done(vid("unplanned"), false, errStep)
		s.Start(vid("unplanned"))
		s.out("unplanned", "late")
	}},
	{name: "cancelled", play: func(s *stage) {
		s.begin("a", "b", "c")
		s.out("a", "of a")
		s.out("b", "of b\n")
		s.wait(10 * time.Millisecond)
	}},
	{name: "table", play: func(s *stage) {
		s.begin("export")
		s.Table("app", []ImageRow{
			{Platform: "linux/amd64", Digest: vid("1").String(), Size: 31_415_926, LayersReused: 5, LayersBuilt: 2, Time: 12345 * time.Millisecond},
			{Platform: "linux/arm/v7", Digest: vid("2").String(), Size: 999, LayersBuilt: 12, Time: 754321 * time.Millisecond, Emulated: true},
		})
		s.Done(vid("export"), false, nil)
	}},
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Plain, JSON, Quiet} {
		for _, tc := range scenarios {
			t.Run(string(mode)+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				out := perform(t, Options{Mode: mode, Redact: tc.redact}, tc.play)
				assert.Assert(t, !strings.Contains(out, "hunter2"))
				if mode == Quiet && !strings.Contains(out, "ERROR") {
					assert.Equal(t, out, "")
					return
				}
				golden.Assert(t, out, string(mode)+"/"+tc.name+".golden")
			})
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Out: io.Discard, Mode: TTY})
	assert.ErrorContains(t, err, "--progress=plain")
	_, err = New(Options{Out: io.Discard, Mode: "fancy"})
	assert.ErrorContains(t, err, `"fancy": use auto, plain, tty, json or quiet`)
}

func TestAutoIsPlainWithoutTerminal(t *testing.T) {
	t.Parallel()
	out := perform(t, Options{}, func(s *stage) { s.begin("x") })
	assert.Equal(t, out, "#1 [build] x\n")
}

func TestClockIsInjected(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	var now atomic.Int64
	d, err := New(Options{Out: &out, Mode: Plain, Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	assert.NilError(t, err)
	d.Start(vid("x"))
	now.Store(90)
	d.Done(vid("x"), false, nil)
	assert.NilError(t, d.Close())
	assert.Assert(t, strings.HasSuffix(out.String(), "#1 DONE 90.0s\n"), out.String())
}

func TestHeartbeatOff(t *testing.T) {
	t.Parallel()
	out := perform(t, Options{Mode: Plain, Heartbeat: -1}, func(s *stage) {
		s.begin("x")
		s.wait(time.Hour)
	})
	assert.Equal(t, out, "#1 [build] x\n")
}

func TestAfterClose(t *testing.T) {
	t.Parallel()
	out := perform(t, Options{Mode: Plain}, func(s *stage) {
		s.begin("x")
		assert.NilError(t, s.Close())
		s.out("x", "too late\n")
		s.Done(vid("x"), false, nil)
		s.Warn(Warning{Text: "too late"})
	})
	assert.Equal(t, out, "#1 [build] x\n")
}

type brokenWriter struct{ writes int }

func (w *brokenWriter) Write([]byte) (int, error) {
	w.writes++
	return 0, io.ErrClosedPipe
}

func TestLostOutput(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Plain, JSON} {
		w := &brokenWriter{}
		d, err := New(Options{Out: w, Mode: mode})
		assert.NilError(t, err)
		log := d.Log(vid("x"), 1)
		for range 100 {
			_, err := log.Write(bytes.Repeat([]byte("0123456789\n"), 1000))
			assert.NilError(t, err)
		}
		assert.ErrorIs(t, d.Close(), io.ErrClosedPipe)
		assert.Equal(t, w.writes, 1)
	}
}

// A terminal that takes nothing makes steps wait; it does not fill the memory.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		d, err := New(Options{Out: w, Mode: Plain})
		assert.NilError(t, err)
		chunk := []byte(strings.Repeat(strings.Repeat("x", 1023)+"\n", 64))
		const chunks = 300
		var written atomic.Int64
		go func() {
			log := d.Log(vid("x"), 1)
			for range chunks {
				log.Write(chunk)
				written.Add(1)
			}
		}()
		synctest.Wait()
		stuck := int(written.Load()) * len(chunk)
		assert.Assert(t, stuck >= maxQueue/2 && stuck <= 3*maxQueue, "%d", stuck)

		var out bytes.Buffer
		read := make(chan struct{})
		go func() {
			defer close(read)
			io.Copy(&out, r)
		}()
		synctest.Wait()
		assert.NilError(t, d.Close())
		w.Close()
		<-read
		assert.Equal(t, strings.Count(out.String(), "x\n"), chunks*64)
	})
}

// Steps that all write a lot lose nothing and do not pile up.
func TestNothingIsDropped(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Plain, JSON} {
		var out bytes.Buffer
		d, err := New(Options{Out: &out, Mode: mode, Redact: []string{"zzz"}})
		assert.NilError(t, err)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				id := vid(fmt.Sprint(i))
				d.Plan(Vertex{ID: id, Name: fmt.Sprint("step ", i)})
				d.Start(id)
				for stream := range 2 {
					wg.Go(func() {
						w := d.Log(id, stream+1)
						for n := range 2000 {
							fmt.Fprintf(w, "<%d/%d/%d>", i, stream, n)
							if n%7 == 0 {
								io.WriteString(w, "\n")
							}
						}
					})
				}
				for n := range 100 {
					d.Status(id, "blob", int64(n), 100, n == 99)
					d.Warn(Warning{Text: fmt.Sprint("warning ", n)})
				}
			})
		}
		wg.Wait()
		for i := range 8 {
			d.Done(vid(fmt.Sprint(i)), false, nil)
		}
		assert.NilError(t, d.Close())
		seen := map[string]int{}
		for _, token := range regexp.MustCompile(`<[0-9/]+>`).FindAllString(out.String(), -1) {
			seen[token]++
		}
		assert.Equal(t, len(seen), 8*2*2000)
		assert.Equal(t, strings.Count(out.String(), "<"), 8*2*2000)
	}
}

// A step that writes a lot while another one is shown does not pile up.
func TestLoudStepTakesItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d, err := New(Options{Out: &out, Mode: Plain})
		assert.NilError(t, err)
		defer d.Close()
		s := &stage{t, d}
		s.begin("shown", "loud")
		s.out("loud", "a little\n")
		synctest.Wait()
		assert.Equal(t, out.String(), "#1 [build] shown\n")
		s.out("loud", strings.Repeat("much\n", maxPending/5+1))
		synctest.Wait()
		assert.Equal(t, strings.Count(out.String(), "much\n"), maxPending/5+1)
	})
}
