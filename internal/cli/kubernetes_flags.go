package cli

import (
	"cmp"
	"reflect"
	"regexp"
	"time"

	"github.com/org/kaniko-multiarch/internal/driver/kubernetes"
)

// Drivers: who builds.
const (
	driverLocal      = "local"
	driverKubernetes = "k8s"
	driverCI         = "ci"
)

// kubernetesFlags say which cluster builds, and what its Jobs look like. They are
// for --driver=k8s alone, and zero when they are not given.
type kubernetesFlags struct {
	K8sKubeconfig      string         `name:"k8s-kubeconfig" help:"File that says how to reach the cluster (default: $KUBECONFIG, ~/.kube/config, or the pod that this runs in)."`
	K8sContext         string         `name:"k8s-context" help:"Context of the kubeconfig (default: its current one)."`
	K8sNamespace       string         `name:"k8s-namespace" help:"Namespace of the Jobs (default: that of the kubeconfig, or of the pod that this runs in)."`
	K8sImage           string         `name:"k8s-image" help:"Image with this program, best REPO@DIGEST (default: that of this release)."`
	K8sImagePullPolicy string         `name:"k8s-image-pull-policy" help:"Always, IfNotPresent or Never (default: the cluster's)."`
	K8sPullSecret      []string       `name:"k8s-pull-secret" sep:"none" help:"Secrets to pull that image with."`
	K8sRegistrySecret  []string       `name:"k8s-registry-secret" sep:"none" help:"SECRET[:KEY] with the registries' logins for the build, as kubectl create secret docker-registry makes it; at most two."`
	K8sServiceAccount  string         `name:"k8s-service-account" help:"Service account of the pods, as for a cloud's registry (default: the namespace's)."`
	K8sRequest         []string       `name:"k8s-request" sep:"none" help:"What a pod asks for: cpu=2,memory=4Gi,ephemeral-storage=20Gi."`
	K8sLimit           []string       `name:"k8s-limit" sep:"none" help:"The most that a pod gets, in the same form."`
	K8sNodeSelector    []string       `name:"k8s-node-selector" sep:"none" help:"KEY=VALUE that nodes must have."`
	K8sNodeAffinity    string         `name:"k8s-node-affinity" help:"Selector that nodes must match: 'pool in (builders,spare),!spot'."`
	K8sToleration      []string       `name:"k8s-toleration" sep:"none" help:"KEY[=VALUE][:EFFECT] of a taint that pods tolerate."`
	K8sLabel           []string       `name:"k8s-label" sep:"none" help:"KEY=VALUE of labels of the Jobs and pods."`
	K8sAnnotation      []string       `name:"k8s-annotation" sep:"none" help:"KEY=VALUE of annotations of the Jobs and pods, one a line."`
	K8sPriorityClass   string         `name:"k8s-priority-class" help:"Priority class of the pods."`
	K8sRuntimeClass    string         `name:"k8s-runtime-class" help:"Runtime class of the pods."`
	K8sPodTemplate     string         `name:"k8s-pod-template" help:"File with a Pod that is merged over the driver's, as kubectl patch does; the container is called kaniko."`
	K8sDeadline        time.Duration  `name:"k8s-deadline" help:"End a Job after this time, waiting included: 2h (default: never)."`
	K8sScheduleTimeout *time.Duration `name:"k8s-schedule-timeout" help:"How long a pod may wait for a node (default: 10m)."`
	K8sLease           *time.Duration `name:"k8s-lease" help:"How long a Job goes on after this program was killed (default: 5m)."`
	K8sTTL             *time.Duration `name:"k8s-ttl" help:"How long a finished Job stays that nobody deletes (default: 1h)."`
	K8sRetries         *int           `name:"k8s-retries" help:"How often a Job starts again after the cluster lost it (default: 2)."`
}

// config is the same for the driver.
func (f kubernetesFlags) config() kubernetes.Config {
	return kubernetes.Config{
		Namespace: f.K8sNamespace, Image: cmp.Or(f.K8sImage, releaseImage(Version)), PullPolicy: f.K8sImagePullPolicy,
		PullSecrets: splitList(f.K8sPullSecret), RegistrySecrets: splitList(f.K8sRegistrySecret), ServiceAccount: f.K8sServiceAccount,
		Requests: splitList(f.K8sRequest), Limits: splitList(f.K8sLimit), NodeSelector: splitList(f.K8sNodeSelector), NodeAffinity: f.K8sNodeAffinity,
		Tolerations: splitList(f.K8sToleration), Labels: splitList(f.K8sLabel), Annotations: splitLines(f.K8sAnnotation),
		PriorityClass: f.K8sPriorityClass, RuntimeClass: f.K8sRuntimeClass, Template: f.K8sPodTemplate,
		Deadline: f.K8sDeadline, ScheduleTimeout: orDefault(f.K8sScheduleTimeout, kubernetes.DefaultScheduleTimeout),
		Lease: orDefault(f.K8sLease, kubernetes.DefaultLease), TTL: orDefault(f.K8sTTL, kubernetes.DefaultTTL),
		Retries: orDefault(f.K8sRetries, kubernetes.DefaultRetries),
	}
}

// orDefault is the default of a flag that was not given: 0 is one that was.
func orDefault[T any](flag *T, value T) T {
	if flag == nil {
		return value
	}
	return *flag
}

// refuse is about flags that another driver would ignore.
func (f kubernetesFlags) refuse(driver string) error {
	v := reflect.ValueOf(f)
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			return usagef("--%s is for --driver=k8s, and this is --driver=%s: leave it out, or add --driver=k8s", v.Type().Field(i).Tag.Get("name"), driver)
		}
	}
	return nil
}

var release = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+$`)

// releaseImage is the image of a release; empty for any other build.
func releaseImage(version string) string {
	if !release.MatchString(version) {
		return ""
	}
	return "ghcr.io/org/kaniko-multiarch:" + version
}
