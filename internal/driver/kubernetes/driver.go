// Package kubernetes is the driver that has every platform built by a Job of its
// own, on a node of the architecture. It makes the Jobs, shows what they do, and
// takes their answers.
//
// It must not know what travels to a Job, nor how an image is made of the answers.
package kubernetes

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"golang.org/x/sync/errgroup"

	"github.com/org/kaniko-multiarch/internal/progress"
)

// Driver runs Jobs. It is used once.
type Driver struct {
	Progress progress.Reporter
	// Key names what is built, in the names and labels of the objects.
	Key string
	// Answer takes a pod's termination message. whole is false for a message that is
	// not one of our program's, as when it was killed; err is what the build failed
	// of. It is called by several goroutines.
	Answer func(platform, message string) (whole bool, err error)

	client    kubernetes.Interface
	settings  *settings
	namespace string
	// ownPod is the name of the pod that this process runs in; empty outside of the
	// cluster.
	ownPod string
	// run is in the labels of all objects, and of nobody else's.
	run       string
	owner     []metav1.OwnerReference
	pace      pace
	contacted atomic.Bool
	outage    sync.Once
}

// New makes a driver for a cluster. The errors are mistakes in c.
func New(cluster *Cluster, c Config) (*Driver, error) {
	s, err := c.parse()
	if err != nil {
		return nil, err
	}
	if s.template, err = readTemplate(c.Template); err != nil {
		return nil, err
	}
	d := &Driver{client: cluster.Client, settings: s, namespace: c.Namespace, pace: usualPace()}
	if d.namespace == "" {
		d.namespace = cluster.Namespace
	}
	if cluster.InCluster {
		d.ownPod, _ = os.Hostname()
	}
	d.run = strings.ToLower(rand.Text())
	// What is wrong with the template shows before anything is sent.
	_, err = d.pod("x", Task{Platform: "linux/amd64", Args: []string{"job"}})
	return d, err
}

// Run has all tasks done. When one fails, the others are ended. No object is left
// when it returns, unless the API server was out of reach; then the cluster ends and
// removes the Jobs itself, after the lease and the time to live.
func (d *Driver) Run(ctx context.Context, tasks []Task) error {
	d.findOwner(ctx)
	w, stop := d.watch(ctx)
	defer stop()
	group, groupCtx := errgroup.WithContext(ctx)
	if n := d.settings.Parallel; n > 0 {
		group.SetLimit(n)
	}
	for _, t := range tasks {
		group.Go(func() error {
			if groupCtx.Err() != nil {
				return context.Cause(groupCtx)
			}
			return d.build(groupCtx, w, t)
		})
	}
	return group.Wait()
}

// findOwner makes the pod of this process the owner of the Jobs: they go when it
// is deleted. Whoever may not look at it does without.
func (d *Driver) findOwner(ctx context.Context) {
	if d.ownPod == "" {
		return
	}
	pod, err := d.client.CoreV1().Pods(d.namespace).Get(ctx, d.ownPod, metav1.GetOptions{})
	if err != nil {
		return
	}
	d.owner = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}
}

func (d *Driver) warn(text string) { d.Progress.Warn(progress.Warning{Text: "kubernetes: " + text}) }

func (d *Driver) warnf(format string, args ...any) { d.warn(fmt.Sprintf(format, args...)) }
