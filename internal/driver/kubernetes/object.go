package kubernetes

import (
	"crypto/rand"
	"fmt"
	"maps"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/org/kaniko-multiarch/internal/platform"
)

// Names in the objects. The labels tell one run of the driver from all others.
const (
	containerName = "kaniko"
	program       = "/kaniko/kaniko-multiarch"
	managedBy     = "app.kubernetes.io/managed-by"
	manager       = "kaniko-multiarch"
	labelPrefix   = "kaniko-multiarch/"
	runLabel      = labelPrefix + "run"
	platformLabel = labelPrefix + "platform"
	keyLabel      = labelPrefix + "key"
)

// Where things are in the pod. The state directory is for builds with namespaces:
// overlayfs does not work on the container's own file system. A build in place
// keeps its state on that, whatever is mounted.
const (
	stateVolume  = "state"
	stateHome    = "/kaniko/cache"
	secretVolume = "job"
	loginVolume  = "registry"
	loginDir     = "/kaniko/.docker"
	moreLoginDir = "/kaniko/registry"
	loginFile    = "config.json"
	defaultKey   = corev1.DockerConfigJsonKey
	graceSeconds = 10
	lostSeconds  = 60
)

// Task is what one Job builds.
type Task struct {
	// Platform in canonical form.
	Platform string
	// Arch is the architecture of the nodes to build it on, from Place; empty is any.
	Arch string
	// Args are those of the program in the pod.
	Args []string
	// Secret is mounted at SecretDir; empty is none.
	Secret    map[string][]byte
	SecretDir string
}

// name is one that no other Job has. The client makes it up, not the server
// (generateName): a request that is sent again after its answer was lost then finds
// the Job that it has made.
func (d *Driver) name(t Task) string {
	key := strings.Trim(strings.NewReplacer(".", "-", "_", "-").Replace(strings.ToLower(d.Key)), "-")
	if len(key) > 24 {
		key = strings.Trim(key[:24], "-")
	}
	if key == "" {
		key = "build"
	}
	return "kma-" + key + "-" + slug(t.Platform) + "-" + strings.ToLower(rand.Text()[:8])
}

func slug(name string) string {
	p, err := platform.Parse(name)
	if err != nil {
		return "other"
	}
	return strings.ReplaceAll(platform.Slug(p), ".", "-")
}

// ofRun selects the objects of this run.
func (d *Driver) ofRun() string { return runLabel + "=" + d.run }

// labels are on the Job, its pod and its Secret.
func (d *Driver) labels(t Task) map[string]string {
	out := map[string]string{managedBy: manager, runLabel: d.run, platformLabel: slug(t.Platform)}
	if d.Key != "" && len(d.Key) <= 63 {
		out[keyLabel] = strings.Trim(d.Key, "._-")
	}
	maps.Copy(out, d.settings.labels)
	return out
}

// job is the Job of a task.
func (d *Driver) job(name string, t Task) (*batchv1.Job, error) {
	pod, err := d.pod(name, t)
	if err != nil {
		return nil, err
	}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: d.namespace, Labels: d.labels(t), Annotations: d.settings.annotations, OwnerReferences: d.owner,
		},
		Spec: batchv1.JobSpec{
			// The driver itself decides what is worth another try.
			BackoffLimit:            ptr.To(int32(0)),
			Completions:             ptr.To(int32(1)),
			Parallelism:             ptr.To(int32(1)),
			ActiveDeadlineSeconds:   d.deadline(0),
			TTLSecondsAfterFinished: ptr.To(int32(d.settings.TTL / time.Second)),
			Template:                pod,
		},
	}, nil
}

// deadline is when the cluster ends a Job that has run for so long, in seconds from
// its start: when nobody waits for it any more, or it may run no longer.
func (d *Driver) deadline(age time.Duration) *int64 {
	end := age + d.settings.Lease
	if limit := d.settings.Deadline; limit > 0 && limit < end {
		end = limit
	}
	return ptr.To(int64((end + time.Second - 1) / time.Second))
}

func (d *Driver) pod(name string, t Task) (corev1.PodTemplateSpec, error) {
	s := d.settings
	selector := map[string]string{corev1.LabelOSStable: "linux"}
	if t.Arch != "" {
		selector[corev1.LabelArchStable] = t.Arch
	}
	maps.Copy(selector, s.nodeSelector)
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		NodeSelector:  selector,
		Tolerations:   append(lostNode(), s.tolerations...),
		Affinity:      affinity(s.affinity),
		// It asks the API nothing.
		ServiceAccountName: s.ServiceAccount, AutomountServiceAccountToken: ptr.To(false), EnableServiceLinks: ptr.To(false),
		PriorityClassName: s.PriorityClass, TerminationGracePeriodSeconds: ptr.To(int64(graceSeconds)),
		SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Volumes:         []corev1.Volume{{Name: stateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		Containers: []corev1.Container{{
			Name: containerName, Image: s.Image, ImagePullPolicy: corev1.PullPolicy(s.PullPolicy),
			Command: []string{program}, Args: t.Args,
			Env:                      []corev1.EnvVar{{Name: "XDG_CACHE_HOME", Value: stateHome}},
			Resources:                corev1.ResourceRequirements{Requests: s.requests, Limits: s.limits},
			VolumeMounts:             []corev1.VolumeMount{{Name: stateVolume, MountPath: stateHome}},
			TerminationMessagePath:   corev1.TerminationMessagePathDefault,
			TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			// Steps run as who they are in the Dockerfile, sudo included: capabilities
			// and privilege escalation are the runtime's defaults, as baseline allows.
		}},
	}
	if s.RuntimeClass != "" {
		spec.RuntimeClassName = ptr.To(s.RuntimeClass)
	}
	for _, name := range s.PullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	for i, name := range s.RegistrySecrets {
		mountLogin(&spec, i, name)
	}
	if len(t.Secret) > 0 {
		mount(&spec, secretVolume, t.SecretDir, corev1.SecretVolumeSource{SecretName: name, DefaultMode: ptr.To(int32(0o400))})
	}
	return s.merge(corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: d.labels(t), Annotations: s.annotations},
		Spec:       spec,
	})
}

// mountLogin shows a Secret of kubectl create secret docker-registry to the program
// under the name that it looks for.
func mountLogin(spec *corev1.PodSpec, i int, ref string) {
	name, key, ok := strings.Cut(ref, ":")
	if !ok {
		key = defaultKey
	}
	dir, variable, value := loginDir, "DOCKER_CONFIG", loginDir
	if i > 0 {
		dir, variable, value = moreLoginDir, "REGISTRY_AUTH_FILE", moreLoginDir+"/"+loginFile
	}
	mount(spec, fmt.Sprintf("%s-%d", loginVolume, i), dir, corev1.SecretVolumeSource{
		SecretName: name, DefaultMode: ptr.To(int32(0o400)), Items: []corev1.KeyToPath{{Key: key, Path: loginFile}},
	})
	c := &spec.Containers[0]
	c.Env = append(c.Env, corev1.EnvVar{Name: variable, Value: value})
}

func mount(spec *corev1.PodSpec, volume, dir string, source corev1.SecretVolumeSource) {
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Secret: &source}})
	c := &spec.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: dir, ReadOnly: true})
}

// lostNode gives a node that is gone a minute, not the default of five: the build
// starts again elsewhere.
func lostNode() []corev1.Toleration {
	var out []corev1.Toleration
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		out = append(out, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To(int64(lostSeconds)),
		})
	}
	return out
}

func affinity(requirements []corev1.NodeSelectorRequirement) *corev1.Affinity {
	if len(requirements) == 0 {
		return nil
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: requirements}},
	}}}
}

// secret is the Secret of a task. It goes with its Job.
func (d *Driver) secret(owner *batchv1.Job, t Task) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: owner.Name, Namespace: d.namespace, Labels: d.labels(t), Annotations: d.settings.annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: owner.Name, UID: owner.UID}},
		},
		Immutable: ptr.To(true),
		Type:      corev1.SecretTypeOpaque,
		Data:      t.Secret,
	}
}
