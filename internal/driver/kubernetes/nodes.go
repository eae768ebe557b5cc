package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
)

// Place finds for each platform the architecture of the nodes to build it on; empty
// is any. It refuses, before anything is sent or started, what no node could build.
func (d *Driver) Place(ctx context.Context, platforms []string) (map[string]string, error) {
	var nodes *corev1.NodeList
	err := d.try(ctx, func(ctx context.Context) error {
		var err error
		nodes, err = d.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		return err
	})
	out := map[string]string{}
	if apierrors.IsForbidden(err) {
		d.warn("the cluster does not let this service account list nodes: whether each platform has one shows when its Job is to start")
		for _, p := range platforms {
			if out[p], err = usualArch(p); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	if err != nil {
		return nil, d.apiError("listing nodes", err)
	}
	for _, p := range platforms {
		if out[p], err = d.placeOne(p, nodes.Items); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// usualArch is where a platform is native for certain.
func usualArch(name string) (string, error) {
	p, err := platform.Parse(name)
	if err != nil {
		return "", &InputError{err}
	}
	if p.Architecture == "386" {
		return "amd64", nil // there are no other nodes
	}
	return p.Architecture, nil
}

func (d *Driver) placeOne(name string, nodes []corev1.Node) (string, error) {
	want, err := platform.Parse(name)
	if err != nil {
		return "", &InputError{err}
	}
	pod, err := d.pod("x", Task{Platform: name})
	if err != nil {
		return "", err
	}
	fit := map[string]bool{}
	refused := map[string][]string{}
	for _, n := range nodes {
		arch := n.Labels[corev1.LabelArchStable]
		if why := unfit(&pod, &n); why != "" {
			if native(arch, want) {
				refused[why] = append(refused[why], n.Name)
			}
			continue
		}
		fit[arch] = true
	}
	// Its own architecture goes before one that runs it, too.
	if fit[want.Architecture] {
		return want.Architecture, nil
	}
	for _, arch := range slices.Sorted(maps.Keys(fit)) {
		if native(arch, want) {
			return arch, nil
		}
	}
	if !d.settings.RequireNative && len(fit) > 0 {
		d.warnf("%s: no node is native (%s): the Job goes to another, which needs an emulator for its steps", name, found(fit, refused))
		return "", nil
	}
	fix := "add such a node or correct --k8s-toleration, --k8s-node-selector and --k8s-node-affinity; or emulate it with --require-native-nodes=false"
	if len(refused) > 0 {
		fix = "make that node usable (kubectl uncordon), or correct --k8s-toleration, --k8s-node-selector and --k8s-node-affinity; or emulate it with --require-native-nodes=false"
	}
	return "", &EnvironmentError{Platform: name, What: "no node of the cluster can build it natively (" + found(fit, refused) + ")", Fix: fix}
}

// native reports whether nodes with the label run programs of a platform.
func native(arch string, want ocispecs.Platform) bool {
	return platform.IsNative(ocispecs.Platform{OS: "linux", Architecture: arch}, want)
}

// unfit says why a pod cannot go to a node; empty is that it can.
func unfit(pod *corev1.PodTemplateSpec, n *corev1.Node) string {
	template := &corev1.Pod{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(template).Match(n); err != nil || !ok {
		return "not selected"
	}
	if n.Spec.Unschedulable {
		return "cordoned"
	}
	if !ready(n) {
		return "not ready"
	}
	taint, found := scheduling.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect != corev1.TaintEffectPreferNoSchedule
	}, true)
	if found {
		return "tainted " + taint.ToString()
	}
	return ""
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// mostNames is how many nodes an error names: a cluster has them by the hundred.
const mostNames = 5

// found describes what there is, for people: the architectures of nodes that fit,
// and why nodes of the right one do not.
func found(fit map[string]bool, refused map[string][]string) string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(refused)) {
		names := slices.Sorted(slices.Values(refused[why]))
		if more := len(names) - mostNames; more > 0 {
			names = append(names[:mostNames], fmt.Sprintf("%d more", more))
		}
		parts = append(parts, why+": "+strings.Join(names, ", "))
	}
	if len(fit) > 0 {
		parts = append(parts, "usable nodes are of "+strings.Join(slices.Sorted(maps.Keys(fit)), ", "))
	} else {
		parts = append(parts, "no other node is usable")
	}
	return strings.Join(parts, "; ")
}
