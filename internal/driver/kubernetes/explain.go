package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// pending explains a pod that does not run by its own status. The time is how long
// that may last.
func (f *following) pending(pod *corev1.Pod) (why, fix string, patience time.Duration) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "no node takes the pod: " + c.Message,
				"free or add a node, lower --k8s-request, or correct --k8s-toleration, --k8s-node-selector and --k8s-node-affinity; --k8s-schedule-timeout is how long to wait",
				f.settings.ScheduleTimeout
		}
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if c.State.Waiting == nil {
			continue
		}
		if why, fix, patience := f.blocked(c.Image, c.State.Waiting); why != "" {
			return why, fix, patience
		}
	}
	return "", "", 0
}

// blocked explains a container that does not start.
func (f *following) blocked(image string, w *corev1.ContainerStateWaiting) (why, fix string, patience time.Duration) {
	why, patience = w.Reason+": "+w.Message, f.pace.grace
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable":
		return "the image " + image + " cannot be pulled: " + why,
			"check --k8s-image, and give --k8s-pull-secret where its registry wants a login", patience
	case "InvalidImageName":
		return why, "correct --k8s-image", 0
	case "ErrImageNeverPull":
		return why, "load the image on the node, or use another --k8s-image-pull-policy", 0
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError", "PreStartHookError":
		return "the container does not start: " + why, "make the Secret or ConfigMap that it names, or correct --k8s-registry-secret and --k8s-pod-template", patience
	}
	return "", "", 0
}

// event explains what an event tells of something that does not start.
func (f *following) event(e corev1.Event) (why, fix string, patience time.Duration) {
	if e.Type != corev1.EventTypeWarning {
		return "", "", 0
	}
	switch e.Reason {
	case "FailedCreate":
		return f.refused(e.Message)
	case "FailedMount", "FailedAttachVolume":
		if strings.Contains(e.Message, "not found") || strings.Contains(e.Message, "references non-existent") {
			return "a volume is missing: " + e.Message, "make the Secret in namespace " + f.namespace + " (kubectl create secret docker-registry), or correct --k8s-registry-secret and --k8s-pod-template", f.pace.grace
		}
		return "a volume cannot be mounted: " + e.Message, "look at the node with kubectl describe node", f.settings.ScheduleTimeout
	case "FailedCreatePodSandBox":
		return "the node cannot start the pod: " + e.Message, "look at the node with kubectl describe node; --k8s-runtime-class must be one that it has", f.settings.ScheduleTimeout
	case "FailedScheduling":
		return "no node takes the pod: " + e.Message, "free or add a node, or lower --k8s-request", f.settings.ScheduleTimeout
	}
	return "", "", 0
}

// refused explains a pod that admission does not let in.
func (f *following) refused(message string) (why, fix string, patience time.Duration) {
	why, patience = "the cluster refuses the pod: "+message, f.pace.grace
	switch {
	case strings.Contains(message, "violates PodSecurity"):
		fix = "a build is root in its own container, and needs the default capabilities for the files and users of the image: " +
			"label the namespace pod-security.kubernetes.io/enforce=baseline (the pod passes that), or give a namespace that has it with --k8s-namespace"
	case strings.Contains(message, "exceeded quota"):
		fix = "wait for other pods, limit these with --parallel, lower --k8s-request, or have the quota raised"
	case strings.Contains(message, "failed quota"):
		fix = "the quota wants --k8s-request and --k8s-limit for what it counts"
	case strings.Contains(message, "serviceaccount"):
		fix = "make the service account in namespace " + f.namespace + ", or correct --k8s-service-account"
	case strings.Contains(message, "PriorityClass"):
		fix = "correct --k8s-priority-class"
	case strings.Contains(message, "RuntimeClass"):
		fix = "correct --k8s-runtime-class"
	default:
		fix = "change what it names, with --k8s-* flags or --k8s-pod-template"
	}
	return why, fix, patience
}

// outOfMemory explains a container that went over its limit.
func (f *following) outOfMemory() error {
	limit, ok := f.settings.limits[corev1.ResourceMemory]
	if !ok {
		return &EnvironmentError{Platform: f.task.Platform, What: "the build was killed for want of memory (OOMKilled)", Fix: "raise the limit that the namespace or the pod template sets, or give --k8s-limit memory=4Gi"}
	}
	return &EnvironmentError{
		Platform: f.task.Platform, What: fmt.Sprintf("the build was killed for want of memory (OOMKilled): its limit is %s", limit.String()),
		Fix: "raise --k8s-limit memory=, or let fewer steps run at once",
	}
}

// noAnswer explains a container that ended and said nothing.
func (f *following) noAnswer(pod *corev1.Pod, end *corev1.ContainerStateTerminated, err error) error {
	switch {
	case end.Reason == "StartError" || end.Reason == "ContainerCannotRun" || end.ExitCode == 255 && strings.Contains(end.Message, "exec format error"):
		return &EnvironmentError{Platform: f.task.Platform, What: "the container cannot run on node " + pod.Spec.NodeName + ": " + end.Message, Fix: "--k8s-image must hold this program for the node's architecture, at " + program}
	case end.Reason == "ContainerStatusUnknown", end.ExitCode == 137, end.ExitCode == 143:
		return &lostError{fmt.Sprintf("the build was killed on node %s (exit code %d, %s)", pod.Spec.NodeName, end.ExitCode, end.Reason)}
	}
	return &EnvironmentError{
		Platform: f.task.Platform, What: fmt.Sprintf("the pod ended with code %d and without a result: %v", end.ExitCode, err),
		Fix: "look at its output above; --k8s-image must be of the same release as this program",
	}
}

// disrupted says why the cluster took a pod away; empty is that it did not.
func disrupted(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return c.Reason + ": " + c.Message
		}
	}
	if pod.Status.Reason != "" && pod.Status.Phase == corev1.PodFailed {
		return pod.Status.Reason + ": " + pod.Status.Message
	}
	return ""
}

// lostPod is a pod that is gone, or going, before its build was done.
func lostPod(pod *corev1.Pod) error {
	why := disrupted(pod)
	if why == "" {
		why = "somebody deleted it"
		if pod.DeletionTimestamp == nil {
			why = "its containers are gone"
		}
	}
	where := ""
	if pod.Spec.NodeName != "" {
		where = " on node " + pod.Spec.NodeName
	}
	return &lostError{"its pod" + where + " was lost (" + strings.TrimSuffix(strings.TrimSpace(why), ":") + ")"}
}

func sortEvents(list []corev1.Event) {
	at := func(e corev1.Event) time.Time {
		if !e.LastTimestamp.IsZero() {
			return e.LastTimestamp.Time
		}
		if !e.EventTime.IsZero() {
			return e.EventTime.Time
		}
		return e.CreationTimestamp.Time
	}
	slices.SortStableFunc(list, func(a, b corev1.Event) int { return at(a).Compare(at(b)) })
}
