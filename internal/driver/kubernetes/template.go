package kubernetes

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// readTemplate reads the user's pod: a Pod or a PodTemplate's template, as YAML or
// JSON. What it does not know is an error, since a typing error would silently give
// another pod.
func readTemplate(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, inputf("--k8s-pod-template: %w", err)
	}
	// The kind is for those who keep such files with a linter; the merge has none.
	var typed struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		corev1.PodTemplateSpec
	}
	if err := yaml.UnmarshalStrict(data, &typed); err != nil {
		return nil, inputf("--k8s-pod-template %s: %w", name, err)
	}
	if typed.Kind != "" && typed.Kind != "Pod" {
		return nil, inputf("--k8s-pod-template %s: it is a %s: want a Pod, with metadata and spec", name, typed.Kind)
	}
	out, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, inputf("--k8s-pod-template %s: %w", name, err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(out, &fields); err != nil {
		return nil, inputf("--k8s-pod-template %s: %w", name, err)
	}
	delete(fields, "apiVersion")
	delete(fields, "kind")
	return json.Marshal(fields)
}

// errNoContainer is a template that took our container away.
var errNoContainer = errors.New("the container " + containerName + " is gone, or does not run this program any more: leave its command, args, terminationMessagePath and restartPolicy alone")

// merge puts the user's pod over ours, as kubectl patch does: lists of containers,
// volumes, variables and such are merged by name.
func (s *settings) merge(pod corev1.PodTemplateSpec) (corev1.PodTemplateSpec, error) {
	if s.template == nil {
		return pod, nil
	}
	ours, err := json.Marshal(pod)
	if err != nil {
		return pod, err
	}
	merged, err := strategicpatch.StrategicMergePatch(ours, s.template, corev1.PodTemplateSpec{})
	if err != nil {
		return pod, inputf("--k8s-pod-template %s: %w", s.Template, err)
	}
	var out corev1.PodTemplateSpec
	if err := json.Unmarshal(merged, &out); err != nil {
		return pod, inputf("--k8s-pod-template %s: %w", s.Template, err)
	}
	if !stillOurs(pod, out) {
		return pod, inputf("--k8s-pod-template %s: %w", s.Template, errNoContainer)
	}
	// They are how the driver finds the pod, and what says whose it is.
	maps.Copy(out.Labels, pod.Labels)
	return out, nil
}

func stillOurs(before, after corev1.PodTemplateSpec) bool {
	a, b := container(&before.Spec), container(&after.Spec)
	return b != nil && after.Spec.RestartPolicy == corev1.RestartPolicyNever &&
		b.TerminationMessagePath == a.TerminationMessagePath && b.TerminationMessagePolicy == a.TerminationMessagePolicy &&
		slices.Equal(a.Args, b.Args) && slices.Equal(a.Command, b.Command)
}

// container is ours among those of a pod.
func container(pod *corev1.PodSpec) *corev1.Container {
	for i := range pod.Containers {
		if pod.Containers[i].Name == containerName {
			return &pod.Containers[i]
		}
	}
	return nil
}
