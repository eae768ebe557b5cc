package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// overlap is how far back a log is read again after it broke off: the server counts
// in seconds, and the two streams of a container are not quite in order.
const overlap = 3 * time.Second

// maxLogLine is the longest line that is kept whole, in bytes.
const maxLogLine = 1 << 20

// manyLines is how many lines are remembered without a look at their age.
const manyLines = 1 << 14

// showLogs begins to show the log of a pod.
func (f *following) showLogs(ctx context.Context, pod *corev1.Pod) {
	if f.logs != nil {
		return
	}
	f.display.started(pod.Spec.NodeName)
	f.logs = make(chan struct{})
	ctx, f.stopLogs = context.WithCancel(ctx)
	go func() {
		defer close(f.logs)
		l := &logReader{show: f.display.line, seen: map[string]int{}}
		for delay := f.pace.request; ; delay = min(2*delay, f.pace.maxRequest) {
			err := f.readLog(ctx, pod, l)
			if ctx.Err() != nil || err == nil || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
				if apierrors.IsForbidden(err) {
					f.warnf("the log cannot be shown: %v", err)
				}
				return
			}
			if l.progress {
				l.progress, delay = false, f.pace.request
			}
			if sleep(ctx, delay) != nil {
				return
			}
		}
	}()
}

// drain waits for the end of the log, for a while.
func (f *following) drain(ctx context.Context) {
	if f.logs == nil {
		return
	}
	timer := time.NewTimer(f.pace.drain)
	defer timer.Stop()
	select {
	case <-f.logs:
	case <-ctx.Done():
	case <-timer.C:
	}
	f.endLogs()
}

func (f *following) endLogs() {
	if f.logs != nil {
		f.stopLogs()
		<-f.logs
	}
}

// errBroken is a log that ended before its container.
var errBroken = errors.New("the log broke off")

// readLog shows what there is to show, until the container ends.
func (f *following) readLog(ctx context.Context, pod *corev1.Pod, l *logReader) error {
	options := &corev1.PodLogOptions{Container: containerName, Follow: true, Timestamps: true}
	if !l.newest.IsZero() {
		options.SinceTime = ptr.To(metav1.NewTime(l.newest.Add(-overlap)))
	}
	stream, err := f.client.CoreV1().Pods(f.namespace).GetLogs(pod.Name, options).Stream(ctx)
	if err != nil {
		return err
	}
	l.again()
	err = errors.Join(l.read(stream), stream.Close())
	if err != nil {
		return err
	}
	// The end of a log looks as a connection that was closed.
	done, err := f.over(ctx, pod)
	if err == nil && !done {
		return errBroken
	}
	return err
}

// over reports whether a container has ended. It asks, since what the watches know
// may be older than the log; then the log is read once more.
func (f *following) over(ctx context.Context, pod *corev1.Pod) (bool, error) {
	now, err := f.client.CoreV1().Pods(f.namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	c := status(now)
	return now.UID != pod.UID || c != nil && c.State.Terminated != nil || now.Status.Phase == corev1.PodFailed || now.Status.Phase == corev1.PodSucceeded, nil
}

// logReader shows every line of a log once, however often it is read.
type logReader struct {
	show func(line []byte)
	// newest is the time of the newest line.
	newest time.Time
	// seen counts the lines, with their times, of the last seconds; skip are those
	// of them that a stream has not repeated yet.
	seen, skip map[string]int
	// many is how many lines seen may have before old ones are looked for.
	many int
	// progress is set when something new came.
	progress bool
}

// again begins a new stream of the same log.
func (l *logReader) again() {
	l.forget()
	l.skip = maps.Clone(l.seen)
}

func (l *logReader) read(from io.Reader) error {
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := readLine(r)
		if len(line) > 0 && (err == nil || errors.Is(err, io.EOF)) && bytes.HasSuffix(line, []byte("\n")) {
			l.line(bytes.TrimSuffix(line, []byte("\n")))
		} else if len(line) > 0 && errors.Is(err, io.EOF) {
			// A line without an end is the last one, or was cut: a line that comes
			// again whole is shown then.
			l.partial(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readLine reads a line of any length; what is beyond maxLogLine is left out.
func readLine(r *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(out)+len(part) <= maxLogLine {
			out = append(out, part...)
		} else if err == nil {
			out = append(out, '\n')
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return out, err
		}
	}
}

func (l *logReader) line(line []byte) {
	key := string(line)
	if l.skip[key] > 0 {
		l.skip[key]--
		return
	}
	at, text, ok := stamp(line)
	if !ok {
		text = line
	} else if at.After(l.newest) {
		l.newest = at
	}
	if len(l.seen) > max(l.many, manyLines) {
		l.forget()
		// Twice as many: a step that prints fast would have all looked at for each line.
		l.many = 2 * len(l.seen)
	}
	l.seen[key]++
	l.progress = true
	l.show(text)
}

// partial is a line whose end has not come.
func (l *logReader) partial(line []byte) {
	if _, text, ok := stamp(line); !ok || len(text) > 0 && text[0] != '{' {
		l.line(line)
	}
}

// forget drops lines that no stream will repeat.
func (l *logReader) forget() {
	for line := range l.seen {
		if at, _, ok := stamp([]byte(line)); ok && at.Before(l.newest.Add(-overlap-time.Second)) {
			delete(l.seen, line)
		}
	}
}

// stamp takes the time off a line.
func stamp(line []byte) (time.Time, []byte, bool) {
	before, text, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return time.Time{}, nil, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(before))
	return at, text, err == nil
}
